"""A yes of the gate that must be confirmed: on which clips, at which level, and what is kept of it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from data import champion
from flows.reporting import build_report
from flows.rounds.plain import plain_round, plain_stage
from tasks import evaluate, finetune
from tasks.context import RoundContext
from tasks.evaluate import EvaluateUnit
from tasks.stages import STAGES
from tasks.summary import RoundSummary
from tests.rejudge import rejudge
from tests.tiny_round import Tiny, begun, cached, committed

HOW = ["evaluate.guards=[motion]", "gate.confirm=0.2"]


def comparisons(context: RoundContext) -> list[EvaluateUnit]:
    units = [unit for phase in evaluate.phases(context) for unit in phase.units]
    return [unit for unit in units if isinstance(unit, EvaluateUnit)]


def play(context: RoundContext, *gains: float) -> RoundSummary:
    """A real round whose clips are judged anew: the gate's first, then those that its confirmation adds."""
    for stage in ("generate", "score", "curate", "finetune", "evaluate"):
        plain_stage(stage, context)
    learned = finetune.candidate(context)
    assert learned is not None
    for place, gain in enumerate(gains):
        value: Mapping[str, float] = {context.policy.policy_id: 0.5, learned.policy_id: 0.5 + gain}
        units = comparisons(context)
        seen = {key for unit in units[:place] for side in unit.sides for key in side.clips.keys}
        rejudge(context, units[place].sides, value, but=seen)
        plain_stage("evaluate", context)
    return plain_round(context)


def test_confirmed_with_clips_that_nobody_has_seen_and_repeated_from_the_cache(tiny: Tiny) -> None:
    how = [*HOW, "evaluate.confirm_clips=8", "evaluate.guards=[motion, diversity]"]
    context = begun(tiny, *how)
    summary = play(context, 0.5, 0.25)
    assert summary.promoted, summary.verdict
    told = (
        "Confirmed with fresh clips beside the gate's, at a one-sided level of 0.2: physics rose from 0.500"
    )
    assert told in summary.verdict
    gate, again = comparisons(context)
    ((_, jobs),) = context.evaluate.jobs
    seen = {job.seed for job in jobs}
    rows = context.store.read(again.key, "evaluations")
    asked = [(row.policy_id, row.seed) for row in rows if row.metric == "physics"]
    fresh = {seed for _, seed in asked} - seen
    assert (len(asked), len(fresh), {seed for _, seed in asked} - fresh) == (24, 8, seen)
    assert not fresh & {job.seed for job in context.jobs}
    # Diversity belongs to a prompt: of all its clips, once for each policy.
    assert sum(row.metric == "diversity" for row in rows) == 8
    held = summary.confirmation
    assert held is not None
    assert (held.key, held.primary.n, held.level) == (again.key, 12, 0.2)
    assert held.primary.delta == pytest.approx((4 * 0.5 + 8 * 0.25) / 12)
    assert held.guards["motion"].ok is not False
    # The round's own figures stay those of the gate, and so does the key that reports read.
    assert (summary.primary.n, summary.primary.delta, summary.key_of("evaluate")) == (4, 0.5, gate.key)
    assert "Confirmed with fresh clips" in build_report(context.store, summary.round).read_text("utf-8")

    before = committed(tiny.store)
    repeated = plain_round(begun(tiny, *how)).model_dump()
    assert all(have == total for have, total in cached(repeated).values())
    assert committed(tiny.store) == before
    # The gate's own comparison is that of a round without confirmation.
    plain = begun(tiny, how[-1])
    assert [unit.key for unit in comparisons(plain)] == [gate.key]


def test_what_is_not_confirmed_is_not_promoted(tiny: Tiny) -> None:
    context = begun(tiny, *HOW)
    summary = play(context, 0.25, -0.5)
    assert not summary.promoted
    assert summary.verdict.startswith(
        "Not promoted: not confirmed with fresh clips beside the gate's, at a one-sided level of 0.2: "
    )
    assert "The gate had let it through: physics rose from 0.500 to 0.750" in summary.verdict
    assert summary.confirmation is not None
    assert (summary.confirmation.confirmed, summary.confirmation.primary.delta) == (False, -0.125)
    assert champion.read(context.store) is None


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ([], ""),
        (["gate.confirm=0.2"], ""),
        (["gate.confirm=1e-4"], "0.0001, on 4 prompts (heldout): its interval is"),
        (["gate.confirm=0.2", "evaluate.clips=3"], "no interval of fewer than 4 prompts"),
    ],
)
def test_prompts_too_few_for_a_level_are_told(tiny: Tiny, how: list[str], said: str) -> None:
    told = [one for one in STAGES["evaluate"].warnings(begun(tiny, *how), False) if "confirmed" in one]
    assert len(told) == bool(said)
    assert said in "".join(told)


def test_a_no_of_the_gate_asks_nobody_else(tiny: Tiny) -> None:
    context = begun(tiny, *HOW)
    summary = play(context, 0.0)
    assert (summary.promoted, summary.confirmation) == (False, None)
    assert len(comparisons(context)) == 1
    assert "confirmation" not in summary.model_dump()


def test_a_guard_that_has_drifted_too_far_keeps_the_champion(tiny: Tiny) -> None:
    held = play(begun(tiny, HOW[0]), 0.5)
    assert held.promoted, held.verdict
    guard = held.guards["motion"]
    assert guard.before
    assert guard.after
    far = 0.79 * guard.before / guard.after  # so that this round would take it to 0.79
    kept = plain_round(begun(tiny, HOW[0], f"gate.drift={{motion: {far}}}"))
    assert not kept.promoted
    assert "motion would come to 0.79 times what it was as the series began: below 0.8" in kept.verdict
    allowed = begun(tiny, HOW[0], f"gate.drift={{motion: {far}}}", "gate.min_drift=0.7")
    assert plain_round(allowed).promoted
