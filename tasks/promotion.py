"""From the gate's yes to the crown: at once, over the policy that was beaten, or after a person's word."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from data import champion
from data.champion import ChampionMoved
from models.policy import policy_id
from tasks import finetune
from tasks.context import RoundContext
from tasks.summary import Approval, RoundSummary

Promotion = Literal["at once", "over its start", "asked"]
"""What a gate that lets the candidate through leads to.

    at once         the candidate becomes champion, whoever is champion now
    over its start  the candidate becomes champion if the policy that the round began from still is
    asked           nothing yet: a person is asked, and `tasks.rounds.settle` ends the round
"""
_LONGEST: Final = 2000


@dataclass(frozen=True)
class Answer:
    """What a person said about a candidate.

    Attributes:
        yes: promote it.
        who: the person, as they call themselves.
        reason: why, in their words.
    """

    yes: bool
    who: str
    reason: str


def conclude(context: RoundContext, summary: RoundSummary, promotion: Promotion) -> RoundSummary:
    """The summary with what the gate's yes comes to. Raises StoreError: the store cannot be written.

    Args:
        context: a round whose candidate the gate lets through.
        summary: of the round, with the gate's own verdict.
        promotion: see `Promotion`.
    """
    match promotion:
        case "at once":
            champion.promote(context.store, _candidate(context), context.run_id)
            return summary
        case "over its start":
            return _crown(context, summary, None)
        case "asked":
            asked = Approval(asked=_now(), answer=None, who=None, reason=None, answered=None)
            opening = "Waits for approval by a person."
            return _kept(summary, opening).changed(approval=asked)


def answered(context: RoundContext, summary: RoundSummary, answer: Answer | None) -> RoundSummary:
    """The summary with what a person's answer comes to; arguments as in `conclude`."""
    if answer is None:
        silence = Approval(answer="none", who=None, reason="nobody answered in time", answered=_now())
        return _kept(summary, "Not promoted: nobody approved it in time.").changed(approval=silence)
    approval = Approval(
        answer="yes" if answer.yes else "no",
        who=answer.who[:_LONGEST],
        reason=answer.reason[:_LONGEST],
        answered=_now(),
    )
    ended = (
        _crown(context, summary, answer)
        if answer.yes
        else _kept(summary, f"Not promoted: {answer.who} said no ({answer.reason}).")
    )
    return ended.changed(approval=approval)


def _crown(context: RoundContext, summary: RoundSummary, answer: Answer | None) -> RoundSummary:
    by, reason = (answer.who, answer.reason) if answer else ("", "")
    approved = f" Approved by {by} ({reason})." if answer else ""
    try:
        champion.promote(
            context.store,
            _candidate(context),
            context.run_id,
            beaten=context.policy.policy_id,
            base=policy_id(context.policy.base_id),
            approved_by=by,
            reason=reason,
        )
    except ChampionMoved as moved:
        return _kept(summary, f"Not promoted: {moved}.{approved}")
    return summary.changed(promoted=True, verdict=f"{summary.verdict}{approved}")


def _kept(summary: RoundSummary, opening: str) -> RoundSummary:
    """The champion stays, against the gate's word or before a person's."""
    return summary.changed(promoted=False, verdict=f"{opening} The gate says: {summary.verdict}")


def _candidate(context: RoundContext) -> str:
    learned = finetune.candidate(context)
    assert learned is not None  # the gate has compared it
    return learned.policy_id


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
