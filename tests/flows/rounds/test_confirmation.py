"""A yes of the gate that must be confirmed: on which clips, at which level, and what is kept of it."""

from __future__ import annotations

from collections.abc import Mapping

from data import champion
from flows.reporting import build_report
from flows.rounds.plain import plain_round, plain_stage
from tasks import evaluate, finetune
from tasks.context import RoundContext
from tasks.evaluate import EvaluateUnit
from tasks.summary import RoundSummary
from tests.rejudge import rejudge
from tests.tiny_round import Tiny, begun, cached, committed

HOW = ["evaluate.guards=[motion]", "gate.confirm=0.2"]


def comparisons(context: RoundContext) -> list[EvaluateUnit]:
    units = [unit for phase in evaluate.phases(context) for unit in phase.units]
    return [unit for unit in units if isinstance(unit, EvaluateUnit)]


def play(context: RoundContext, *gains: float) -> RoundSummary:
    """A real round whose comparisons are judged anew: the gate's first, then its confirmation."""
    for stage in ("generate", "score", "curate", "finetune", "evaluate"):
        plain_stage(stage, context)
    learned = finetune.candidate(context)
    assert learned is not None
    for place, gain in enumerate(gains):
        value: Mapping[str, float] = {context.policy.policy_id: 0.5, learned.policy_id: 0.5 + gain}
        rejudge(context, comparisons(context)[place].sides, value)
        plain_stage("evaluate", context)
    return plain_round(context)


def test_confirmed_on_seeds_that_nobody_has_seen_and_repeated_from_the_cache(tiny: Tiny) -> None:
    how = [*HOW, "evaluate.confirm_clips=8"]
    context = begun(tiny, *how)
    summary = play(context, 0.5, 0.25)
    assert summary.promoted, summary.verdict
    assert "Confirmed on fresh seeds at a one-sided level of 0.2: physics rose from 0.500" in summary.verdict
    gate, again = comparisons(context)
    seen = {job.seed for _, jobs in context.evaluate.jobs for job in jobs} | {
        job.seed for job in context.jobs
    }
    rows = context.store.read(again.key, "evaluations")
    fresh = {row.seed for row in rows if row.metric == "physics"}
    assert len(fresh) == 8
    assert not fresh & seen
    held = summary.confirmation
    assert held is not None
    assert (held.key, held.primary.n, held.primary.delta, held.level) == (again.key, 8, 0.25, 0.2)
    assert held.guards["motion"].ok is not False
    # The round's own figures stay those of the gate, and so does the key that reports read.
    assert (summary.primary.n, summary.primary.delta, summary.key_of("evaluate")) == (4, 0.5, gate.key)
    assert "Confirmed on fresh seeds" in build_report(context.store, summary.round).read_text("utf-8")

    before = committed(tiny.store)
    repeated = plain_round(begun(tiny, *how)).model_dump()
    assert all(have == total for have, total in cached(repeated).values())
    assert committed(tiny.store) == before
    # The gate's own comparison is that of a round without confirmation.
    plain = begun(tiny, HOW[0])
    assert [unit.key for unit in comparisons(plain)] == [gate.key]


def test_what_is_not_confirmed_is_not_promoted(tiny: Tiny) -> None:
    context = begun(tiny, *HOW)
    summary = play(context, 0.5, -0.25)
    assert not summary.promoted
    assert summary.verdict.startswith(
        "Not promoted: not confirmed on fresh seeds at a one-sided level of 0.2: "
    )
    assert "The gate had let it through: physics rose from 0.500 to 1.000" in summary.verdict
    assert summary.confirmation is not None
    assert (summary.confirmation.confirmed, summary.confirmation.primary.delta) == (False, -0.25)
    assert champion.read(context.store) is None


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
