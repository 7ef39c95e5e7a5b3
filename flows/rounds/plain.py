"""The round and its stages without Prefect."""

from __future__ import annotations

from collections.abc import Iterable

from flows.reporting import console
from flows.rounds.run_round import play, play_stage, ready
from tasks.context import RoundContext
from tasks.promotion import Promotion
from tasks.stage_spec import Phase
from tasks.summary import RoundSummary
from tasks.units import Runner, StageResult


def plain_round(
    context: RoundContext, promotion: Promotion = "at once", from_stage: str | None = None
) -> RoundSummary:
    """Play a round that has begun, here; returns its summary. Raises as `flows.rounds.run_round.play`."""
    return play(context, lambda stage: plain_stage(stage, context), from_stage, promotion)


def plain_stage(stage: str, context: RoundContext, phases: Iterable[Phase] | None = None) -> StageResult:
    """Run one stage, here and now. Raises as `flows.rounds.run_round.play_stage`."""
    runner = Runner(context.workers, console.current(), ready=ready(context, stage))
    return play_stage(stage, context, runner, phases)
