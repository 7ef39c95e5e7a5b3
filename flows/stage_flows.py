"""What the five stage flows share: their parameters, their run names, and the call of the stage."""

from __future__ import annotations

import dataclasses
from typing import Any

from prefect.runtime import flow_run

from data.errors import VidloopError
from flows import terminal
from flows.playing import begin, context_of, play_stage
from flows.recipe_file import load_recipe
from tasks.prefect_runner import prefect_runner
from tasks.stages import require_whole

DEFAULT_RECIPE = "recipes/mini.yaml"
NO_OVERRIDES: list[str] = []


def run_stage_flow(stage: str, recipe: str, store: str, overrides: list[str], run: str) -> dict[str, Any]:
    """Run `stage` as part of round `run`, or alone (then the stages before it must be whole).

    Returns:
        What `summary.json` says of the stage.

    Raises:
        StageFailed, BadInput: see `flows.playing`.
    """
    if run:
        context = context_of(recipe, store, run)
    else:
        context = begin(recipe, store, overrides)
        require_whole(context, stage)
    runner = prefect_runner(context.store, context.workers, terminal.current())
    return dataclasses.asdict(play_stage(stage, context, runner))


def run_name() -> str:
    """Recipe and objective, for example "mini dpo-anchor"; the flow's name stands beside it."""
    given = flow_run.parameters
    try:
        recipe = load_recipe(given.get("recipe", DEFAULT_RECIPE), given.get("overrides") or [])
    except VidloopError:
        return "refused recipe"  # the flow itself says why
    return f"{recipe.name} {recipe.finetune.objective} seed {recipe.seed}"
