"""Commands that run something: `round`, each stage, `plan` and `explain`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from data.errors import ConfigError
from data.store import Store
from data.store.aside import FOLDER as ASIDE
from flows.cli.app import answers, app
from flows.cli.options import (
    NOTHING_SET,
    DryOption,
    FromOption,
    PlainOption,
    RecipeOption,
    SetOption,
    StoreOption,
    prefect_ready,
    report_on_terminal,
)
from flows.config.load import dump, load_recipe
from flows.config.resolve import open_reward
from flows.reporting import console
from flows.reporting.messages import DEFAULT_RECIPE, DEFAULT_STORE
from flows.rounds import explain_key
from flows.rounds.dry_run import plan_lines, to_look_at
from flows.rounds.run_round import begin, play_alone
from rewards import RewardRef
from tasks import score
from tasks.context import RoundContext
from tasks.stages import FIRST, STAGES


@app.command("round")
@answers
def round_command(
    recipe: RecipeOption = DEFAULT_RECIPE,
    store: StoreOption = DEFAULT_STORE,
    set_: SetOption = NOTHING_SET,
    from_stage: FromOption = None,
    plain: PlainOption = False,
    dry_run: DryOption = False,
) -> None:
    """One round: generate, score, curate, finetune, evaluate; promote the candidate if it is better."""
    if dry_run:
        return _show_plan(recipe, store, set_)
    report_on_terminal(recipe, set_, plain)
    context = begin(load_recipe(recipe, set_), Store.open(store, create=from_stage is None))
    if plain:
        from flows.rounds.plain import plain_round

        plain_round(context, from_stage=from_stage)
        return None
    with prefect_ready(context.store, context.run_id):
        from flows.rounds.round import round_flow

        round_flow(store=context.generation.root, from_stage=from_stage or FIRST, run=context.run_id)
    return None


def _stage_command(stage: str) -> None:
    """Add the command of one stage."""

    @app.command(stage, help=_help(stage))
    @answers
    def command(
        recipe: RecipeOption = DEFAULT_RECIPE,
        store: StoreOption = DEFAULT_STORE,
        set_: SetOption = NOTHING_SET,
        plain: PlainOption = False,
    ) -> None:
        report_on_terminal(recipe, set_, plain)
        _play_stage(stage, begin(load_recipe(recipe, set_), Store.open(store, create=stage == FIRST)), plain)


def _score_command(stage: str) -> None:
    """Add the command of the stage that scores, which can ask again."""

    @app.command(stage, help=_help(stage))
    @answers
    def command(
        recipe: RecipeOption = DEFAULT_RECIPE,
        store: StoreOption = DEFAULT_STORE,
        set_: SetOption = NOTHING_SET,
        plain: PlainOption = False,
        again: Annotated[
            str | None,
            typer.Option(
                "--again", metavar="REWARD", help="Set aside what this reward said, and have it say it again."
            ),
        ] = None,
        failed: Annotated[bool, typer.Option("--failed", help="Of --again: where it gave no value.")] = False,
        where: Annotated[
            str | None,
            typer.Option(
                "--where",
                metavar="SQL",
                help="Of --again: a condition over views scores and clips, as \"error LIKE '%CUBLAS%'\".",
            ),
        ] = None,
    ) -> None:
        if again is None and (failed or where is not None):
            raise ConfigError("--failed and --where say which answers of --again REWARD are meant: name it")
        report_on_terminal(recipe, set_, plain)
        read = load_recipe(recipe, set_)
        context = begin(read, Store.open(store))
        if again is not None:
            _release(context, open_reward(read, again, context.store), failed, where)
        _play_stage(stage, context, plain)


def _release(context: RoundContext, reward: RewardRef, failed: bool, where: str | None) -> None:
    from tasks.release import release

    found = release(context.store, reward, failed, where)
    facts = {"reward": reward.name, "failed": failed, "where": where, "units": list(found.units)}
    context.store.log_run(context.run_id, {"event": "released", "clips": found.clips, **facts})
    console.info(
        f"{reward.name} is asked again about {found.clips} clips ({len(found.units)} units are in "
        f"{context.store.where(ASIDE)}); those that examine when the round is played"
        if found.units
        else f"nothing to ask again: the store holds no such answer of {reward.name}"
    )


def _help(stage: str) -> str:
    return f"Stage {list(STAGES).index(stage) + 1} alone. {STAGES[stage].does}"


def _play_stage(stage: str, context: RoundContext, plain: bool) -> None:
    def call(stage: str) -> None:
        if plain:
            from flows.rounds.plain import plain_stage

            plain_stage(stage, context)
            return
        with prefect_ready(context.store, context.run_id):
            from flows.rounds.stage_flows import FLOWS

            FLOWS[stage](store=context.generation.root, run=context.run_id)

    play_alone(stage, context, call)


for _stage in STAGES:
    (_score_command if _stage == score.STAGE else _stage_command)(_stage)


@app.command("plan")
@answers
def plan_command(
    recipe: RecipeOption = DEFAULT_RECIPE,
    store: StoreOption = DEFAULT_STORE,
    set_: SetOption = NOTHING_SET,
    resolved: Annotated[
        bool, typer.Option("--resolved", help="Print the recipe with every default.")
    ] = False,
) -> None:
    """Show what a round would run, and what the store already holds."""
    if resolved:
        print(dump(load_recipe(recipe, set_)), end="")
    else:
        _show_plan(recipe, store, set_)


@app.command("explain")
@answers
def explain_command(
    key: Annotated[
        str, typer.Argument(help="A unit's key, or its first digits; `plan` and summary.json name them.")
    ],
    recipe: RecipeOption = DEFAULT_RECIPE,
    store: StoreOption = DEFAULT_STORE,
    set_: SetOption = NOTHING_SET,
) -> None:
    """Show what a key asks, and how it differs from the nearest one that the store holds."""
    with to_look_at(load_recipe(recipe, set_), store) as context:
        for line in explain_key.explain(context, key):
            print(line)


def _show_plan(recipe: str, store: str, set_: list[str]) -> None:
    terminal = Console()
    with to_look_at(load_recipe(recipe, set_), store) as context:
        for line in plan_lines(context):
            terminal.print(line, markup=False, highlight=False, soft_wrap=True)
