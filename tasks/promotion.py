"""From the gate's yes to the crown: at once, over the policy that was beaten, or after a person's word."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from data import champion
from data.champion import ChampionMoved
from models.policy import policy_id
from tasks import finetune
from tasks.context import RoundContext

Promotion = Literal["at once", "over its start", "asked"]
"""What a gate that lets the candidate through leads to.

    at once         the candidate becomes champion, whoever is champion now
    over its start  the candidate becomes champion if the policy that the round began from still is
    asked           nothing yet: a person is asked, and `tasks.rounds.settle` ends the round
"""
_OPENING: Final = "Promoted: "
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


def conclude(context: RoundContext, verdict: str, promotion: Promotion) -> dict[str, Any]:
    """What the gate's yes comes to, as fields of the summary. Raises StoreError: the store cannot be written.

    Args:
        context: a round whose candidate the gate lets through.
        verdict: the gate's sentence.
        promotion: see `Promotion`.
    """
    match promotion:
        case "at once":
            champion.promote(context.store, _candidate(context), context.run_id)
            return {}
        case "over its start":
            return _crown(context, verdict, None)
        case "asked":
            told = f"Waits for approval by a person. The gate says: {verdict}"
            asked = {"asked": _now(), "answer": None, "who": None, "reason": None, "answered": None}
            return {"promoted": False, "verdict": told, "approval": asked}


def answered(context: RoundContext, verdict: str, answer: Answer | None) -> dict[str, Any]:
    """What a person's answer comes to, as fields of the summary; arguments as in `conclude`."""
    if answer is None:
        told = f"Not promoted: nobody approved it in time. The gate says: {verdict}"
        approval = {"answer": "none", "who": None, "reason": "nobody answered in time", "answered": _now()}
        return {"promoted": False, "verdict": told, "approval": approval}
    approval = {
        "answer": "yes" if answer.yes else "no",
        "who": answer.who[:_LONGEST],
        "reason": answer.reason[:_LONGEST],
        "answered": _now(),
    }
    if answer.yes:
        return _crown(context, verdict, answer) | {"approval": approval}
    told = f"Not promoted: {answer.who} said no ({answer.reason}). The gate says: {verdict}"
    return {"promoted": False, "verdict": told, "approval": approval}


def _crown(context: RoundContext, verdict: str, answer: Answer | None) -> dict[str, Any]:
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
        return {"promoted": False, "verdict": f"Not promoted: {moved}.{approved} The gate says: {verdict}"}
    return {"promoted": True, "verdict": f"{verdict}{approved}"}


def _candidate(context: RoundContext) -> str:
    learned = finetune.candidate(context)
    assert learned is not None  # the gate has compared it
    return learned.policy_id


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
