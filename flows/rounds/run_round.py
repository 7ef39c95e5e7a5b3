"""The walk through the stages, the same with and without Prefect."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import Any, TypeVar

from data import device_lock
from data.errors import StoreError
from data.store import Store
from flows.config.load import dump, load_recipe
from flows.config.recipe import Recipe
from flows.config.resolve import frozen_policies, open_round
from flows.reporting import console, words
from tasks import evaluate, score, spread
from tasks.calibrate import warnings
from tasks.context import RoundContext
from tasks.failures import failure_lines, failures
from tasks.healing import healed, of_round
from tasks.promotion import Promotion
from tasks.round_ids import new_round_id
from tasks.rounds import RECIPE, finish, give_up
from tasks.stage_spec import Phase
from tasks.stages import FIRST, STAGES, require_ready, require_weights, require_whole, run_phases, run_stage
from tasks.summary import RoundSummary
from tasks.units import Runner, StageResult, do_nothing
from tasks.versions import versions

Result = TypeVar("Result")

# Contexts of this process by run: a round and its stages share one.
_contexts: dict[str, RoundContext] = {}


def begin(recipe: Recipe, store: Store) -> RoundContext:
    """Check everything, and freeze the recipe in the folder of a new round.

    Later readers (the stage flows, a person) take the frozen copy: editing the file changes no round that
    has begun.

    Raises:
        UserError: see `open_round`.
    """
    context = open_round(recipe, store, new_round_id(store))
    store.write_file(f"rounds/{context.run_id}/{RECIPE}", dump(frozen_policies(recipe, context)).encode())
    _contexts[context.run_id] = context
    return context


def frozen_recipe(store: str, run: str) -> str:
    """Path on this machine of a round's own copy of its recipe. Raises StoreError: there is no such store."""
    return str(Store.open(store).local(f"rounds/{run}/{RECIPE}"))


def context_of(store: str, run: str) -> RoundContext:
    """The context of a run that has begun, in this process or another."""
    if run not in _contexts:
        _contexts[run] = open_round(load_recipe(frozen_recipe(store, run)), Store.open(store), run)
    return _contexts[run]


def ready(context: RoundContext, stage: str) -> Callable[[], None]:
    """What a runner does before the first unit of `stage` that must be computed: hold the device."""
    if not STAGES[stage].needs_device:
        return do_nothing

    def hold() -> None:
        for name in spread.lock_names(context.generation.model.device):
            device_lock.hold(name, f"{stage} of round {context.run_id} ({context.name})", console.info)

    return hold


def play(
    context: RoundContext,
    call: Callable[[str], StageResult],
    from_stage: str | None = None,
    promotion: Promotion = "at once",
) -> RoundSummary:
    """Call the stages in their order and finish the round.

    Args:
        context: a round that has begun.
        call: runs one stage, with Prefect or without.
        from_stage: the stages before this one must be whole in the store.
        promotion: what a gate that lets the candidate through leads to.

    Returns:
        The summary.

    Raises:
        StageFailed, UserError: a stage did not finish; the summary says so too, and everything done is
        kept.
    """
    require_ready(context)
    reporter = console.current()
    reporter.on_round_start(context)
    for warning in (*warnings(context), *words.ahead(context.run_id)):
        reporter.info(f"    warning: {warning}")
    results: dict[str, StageResult] = {}
    stage = FIRST

    def through() -> RoundSummary:
        nonlocal stage
        if from_stage is not None:
            require_whole(context, from_stage)
        results.clear()
        for stage, after in zip(STAGES, [*list(STAGES.values())[1:], None], strict=True):
            with after.early_start(context) if after is not None else nullcontext():
                results[stage] = call(stage)
        return finish(context, results, promotion)

    try:
        summary = healed(context.store, of_round(context), through)
    except BaseException as error:
        # A store that cannot be written is most likely what went wrong: do not hide it behind itself.
        with suppress(StoreError):
            give_up(context, results, stage, error)
        raise
    if any(result.cached_shards < result.shards for result in results.values()):
        write_report(context)
    reporter.on_round_end(context, summary)
    return summary


def play_alone(stage: str, context: RoundContext, call: Callable[[str], Result]) -> Result:
    """Call one stage by itself; the stages before it must be whole in the store.

    Raises:
        ConfigError: they are not, or are no more since damage was met; names the command.
        StageFailed, UserError: see `tasks.stages.run_stage`.
    """

    def through() -> Result:
        require_whole(context, stage)
        return call(stage)

    return healed(context.store, of_round(context), through)


def play_stage(
    stage: str, context: RoundContext, runner: Runner, phases: Iterable[Phase] | None = None
) -> StageResult:
    """Run one stage and note what it cost, outside every digest.

    Args:
        stage: which stage.
        context: of the round.
        runner: works through the units.
        phases: other work of the stage's kind; None: that of the round.

    Raises:
        StageFailed, UserError: see `tasks.stages.run_stage`.
    """
    reporter = console.current()
    reporter.on_stage_start(stage)
    wanted = spread.gpus(context.generation.model.device)
    with spread.spread_over(wanted, context.workers):
        workers = context.workers * max(1, len(wanted))
        ready = _warned(stage, context, runner.ready)
        told = replace(runner, workers=workers, ready=ready)
        if phases is None:
            result = run_stage(stage, context, told)
        else:
            result = run_phases(STAGES[stage], context, phases, told)
    facts: dict[str, Any] = {"cached": result.shards == result.cached_shards}
    if not facts["cached"] and STAGES[stage].needs_device:
        facts["versions"] = versions(context.generation.model.device)
    context.store.log_run(context.run_id, {"event": "stage", **vars(result), **facts})
    reporter.on_stage_end(result)
    outcome = STAGES[stage].outcome(context) if phases is None else None
    if outcome is not None:
        reporter.info(outcome)
    if phases is None and stage in (score.STAGE, evaluate.STAGE):
        for line in failure_lines(failures(context, stage)):
            reporter.info(f"    warning: {line}")
    return result


def _warned(stage: str, context: RoundContext, ready: Callable[[], None]) -> Callable[[], None]:
    """`ready`, after what a person should know of the stage, which is said once, and in the run's facts.

    Before that the weights of this and later stages are looked at: no device computes for a round that would
    end with them.
    """
    told: list[str] = []

    def tell() -> None:
        if not told:
            told.append(stage)
            require_weights(context, stage)
            for warning in STAGES[stage].warnings(context, True):
                console.info(f"    warning: {warning}")
                context.store.log_run(context.run_id, {"event": "warning", "text": f"{stage}: {warning}"})
        ready()

    return tell


def write_report(context: RoundContext) -> None:
    """Write the round's page. The round is done and kept: a page that fails is said, and no failure."""
    from flows.reporting import build_report

    try:
        build_report(context.store, context.run_id)
    except Exception as error:
        console.info(f"    the report could not be written ({error}); `vidloop report` tries again")
