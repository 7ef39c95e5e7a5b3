"""What the flows share: their run names, the dry run, and the call of a stage."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from prefect.runtime import flow_run

from data.errors import VidloopError
from data.store import Store
from flows.config.load import load_recipe
from flows.reporting import console
from flows.reporting.artifacts import progress, server
from flows.reporting.messages import DEFAULT_RECIPE, DEFAULT_STORE
from flows.rounds.dry_run import plan_lines, to_look_at
from flows.rounds.forms import overrides_of
from flows.rounds.run_request import RunRequest, StageRequest
from flows.rounds.run_round import begin, context_of, play_alone, play_stage, ready
from tasks.context import RoundContext
from tasks.prefect_runner import prefect_runner
from tasks.stage_spec import Phase
from tasks.units import StageResult


def run_stage_flow(stage: str, asked: StageRequest) -> dict[str, Any]:
    """Run `stage` as part of a round, or alone (then the stages before it must be whole).

    Returns:
        What `summary.json` says of the stage; of a dry run, the plan.

    Raises:
        StageFailed, UserError: see `flows.rounds.run_round`.
    """
    if asked.run:
        context = context_of(asked.store, asked.run)
        name_run(context)
        return vars(run_here(stage, context))
    if asked.dry_run:
        return tell_plan(asked)
    context = begin(asked.read_recipe(), Store.open(asked.store, create=True))
    name_run(context)
    return vars(play_alone(stage, context, lambda stage: run_here(stage, context)))


def run_here(stage: str, context: RoundContext, phases: Iterable[Phase] | None = None) -> StageResult:
    """Run a stage, or other `phases` of its kind, as task runs of the flow run at work."""
    with progress.of_stage(stage, context.run_id, console.current()) as listener:
        runner = prefect_runner(context.workers, listener, ready(context, stage))
        return play_stage(stage, context, runner, phases)


def tell_plan(asked: RunRequest, *changes: str) -> dict[str, Any]:
    """Say what a round would run, and what the store holds; nothing is written."""
    with to_look_at(asked.read_recipe(*changes), asked.store) as context:
        return tell_lines(plan_lines(context))


def tell_lines(lines: Iterable[str]) -> dict[str, Any]:
    """Say a plan, line by line; returns it as the result of a dry run."""
    plan = list(lines)
    for line in plan:
        console.info(line)
    return {"plan": plan}


def run_name() -> str:
    """What the run is: see `name_of`. A round that has not begun has no id; `name_run` adds it."""
    given = flow_run.parameters
    with suppress(VidloopError, ValueError):
        if given.get("run"):
            return _name_in(context_of(given.get("store", DEFAULT_STORE), given["run"]))
        recipe = load_recipe(given.get("recipe", DEFAULT_RECIPE), overrides_of(given))
        name = name_of(recipe.name, recipe.finetune.label, recipe.seed)
        return f"dry run: {name}" if given.get("dry_run") else name
    return "refused recipe"  # the flow itself says why


def name_run(context: RoundContext) -> None:
    """Add the round's id to the name of the flow run at work, now that the round has begun."""
    name = _name_in(context)
    if server.seen() and flow_run.name != name:
        server.attempt("the name of the run", lambda: server.rename(name))


def name_of(recipe: str, objective: str, seed: int, round_id: str = "") -> str:
    """For example "evaluate: mini dpo-anchor seed 0, round 20261122T192425-385a4acf".

    The UI's lists do not show the flow's name, so all flows but the round itself put it first.
    """
    flow = flow_run.flow_name
    what = "" if flow in (None, "round") else f"{flow}: "
    return f"{what}{recipe} {objective} seed {seed}" + (f", round {round_id}" if round_id else "")


def _name_in(context: RoundContext) -> str:
    return name_of(context.name, context.finetune.label, context.seed, context.run_id)
