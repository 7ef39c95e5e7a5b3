"""What the flows share: their defaults, their run names, the dry run, and the call of a stage."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

from prefect.runtime import flow_run

from data.errors import VidloopError
from flows import terminal
from flows.forms import overrides_of
from flows.planning import plan_lines, to_look_at
from flows.playing import begin, context_of, frozen_recipe, play_stage, ready
from flows.recipe_file import load_recipe
from flows.telling import DEFAULT_STORE
from tasks.prefect_runner import prefect_runner
from tasks.stages import require_whole

DEFAULT_RECIPE: Final = "recipes/mini.yaml"
NO_OVERRIDES: list[str] = []


def run_stage_flow(stage: str, given: dict[str, Any]) -> dict[str, Any]:
    """Run `stage` as part of round `given["run"]`, or alone (then the stages before it must be whole).

    Args:
        stage: which of the five.
        given: the flow's parameters.

    Returns:
        What `summary.json` says of the stage; of a dry run, the plan.

    Raises:
        StageFailed, BadInput: see `flows.playing`.
    """
    if given["run"]:
        context = context_of(given["store"], given["run"])
    elif given["dry_run"]:
        return tell_plan(given)
    else:
        context = begin(given["recipe"], given["store"], overrides_of(given))
        require_whole(context, stage)
    runner = prefect_runner(context.store, context.workers, terminal.current(), ready(context, stage))
    return dataclasses.asdict(play_stage(stage, context, runner))


def tell_plan(given: dict[str, Any]) -> dict[str, Any]:
    """Say what a round with these parameters would run, and what the store holds; nothing is written."""
    with to_look_at(given["recipe"], given["store"], overrides_of(given)) as context:
        lines = list(plan_lines(context))
    for line in lines:
        terminal.current().says(line)
    return {"plan": lines}


def run_name() -> str:
    """Recipe and objective, for example "mini dpo-anchor"; the flow's name stands beside it."""
    given = flow_run.parameters
    try:
        if given.get("run"):
            recipe = load_recipe(frozen_recipe(given.get("store", DEFAULT_STORE), given["run"]))
        else:
            recipe = load_recipe(given.get("recipe", DEFAULT_RECIPE), overrides_of(given))
    except (VidloopError, ValueError):
        return "refused recipe"  # the flow itself says why
    dry = "dry run: " if given.get("dry_run") else ""
    return f"{dry}{recipe.name} {recipe.finetune.objective} seed {recipe.seed}"
