"""What the flows share: their defaults, their run names, the dry run, and the call of a stage."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

from prefect.runtime import flow_run

from data.errors import VidloopError
from flows.config.load import load_recipe
from flows.reporting import console
from flows.reporting.artifacts import progress, server
from flows.reporting.messages import DEFAULT_STORE
from flows.rounds import prefect_hooks
from flows.rounds.dry_run import plan_lines, to_look_at
from flows.rounds.forms import overrides_of
from flows.rounds.run_round import begin, context_of, frozen_recipe, play_stage, ready
from tasks.context import RoundContext
from tasks.prefect_runner import prefect_runner
from tasks.stages import require_whole

DEFAULT_RECIPE: Final = "recipes/mini.yaml"
NO_OVERRIDES: list[str] = []

prefect_hooks.do_not_join_heartbeats()


def run_stage_flow(stage: str, given: dict[str, Any]) -> dict[str, Any]:
    """Run `stage` as part of round `given["run"]`, or alone (then the stages before it must be whole).

    Args:
        stage: which of the five.
        given: the flow's parameters.

    Returns:
        What `summary.json` says of the stage; of a dry run, the plan.

    Raises:
        StageFailed, ConfigError: see `flows.rounds.run_round`.
    """
    if given["run"]:
        context = context_of(given["store"], given["run"])
    elif given["dry_run"]:
        return tell_plan(given)
    else:
        context = begin(given["recipe"], given["store"], overrides_of(given))
        require_whole(context, stage)
    name_run(context)
    with progress.of_stage(stage, context.run_id, console.current()) as listener:
        runner = prefect_runner(context.workers, listener, ready(context, stage))
        return dataclasses.asdict(play_stage(stage, context, runner))


def tell_plan(given: dict[str, Any]) -> dict[str, Any]:
    """Say what a round with these parameters would run, and what the store holds; nothing is written."""
    with to_look_at(given["recipe"], given["store"], overrides_of(given)) as context:
        lines = list(plan_lines(context))
    for line in lines:
        console.current().says(line)
    return {"plan": lines}


def run_name() -> str:
    """What the run is: see `told_name`. A round that has not begun has no id; `name_run` adds it."""
    given = flow_run.parameters
    round_id = given.get("run")
    try:
        if round_id:
            recipe = load_recipe(frozen_recipe(given.get("store", DEFAULT_STORE), round_id))
        else:
            recipe = load_recipe(given.get("recipe", DEFAULT_RECIPE), overrides_of(given))
    except (VidloopError, ValueError):
        return "refused recipe"  # the flow itself says why
    name = told_name(recipe.name, recipe.finetune.objective, recipe.seed, round_id)
    return f"dry run: {name}" if given.get("dry_run") else name


def name_run(context: RoundContext) -> None:
    """Add the round's id to the name of the flow run at work, now that the round has begun."""
    name = told_name(context.name, context.finetune.objective, context.seed, context.run_id)
    if server.seen() and flow_run.name != name:
        server.attempt("the name of the run", lambda: server.rename(name))


def told_name(recipe: str, objective: str, seed: int, round_id: str | None) -> str:
    """For example "evaluate: mini dpo-anchor seed 0, round 20261122T192425-385a4acf".

    The UI's lists do not show the flow's name, so all flows but the round itself put it first.
    """
    flow = flow_run.flow_name
    what = "" if flow in (None, "round") else f"{flow}: "
    return f"{what}{recipe} {objective} seed {seed}" + (f", round {round_id}" if round_id else "")
