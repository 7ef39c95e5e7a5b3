"""The round and its stages without Prefect."""

from __future__ import annotations

from typing import Any

from flows.reporting import console
from flows.rounds.run_round import play, play_stage, ready
from tasks.context import RoundContext
from tasks.promotion import Promotion
from tasks.units import Runner, StageResult


def plain_round(
    context: RoundContext, from_stage: str | None = None, promotion: Promotion = "at once"
) -> dict[str, Any]:
    """Play a round that has begun, here; returns its summary. Raises as `flows.rounds.run_round.play`."""
    return play(context, lambda stage: plain_stage(stage, context), from_stage, promotion)


def plain_stage(stage: str, context: RoundContext) -> StageResult:
    """Run one stage, here and now. Raises as `flows.rounds.run_round.play_stage`."""
    return play_stage(stage, context, Runner(context.workers, console.current(), ready=ready(context, stage)))
