"""Commands that run something: `round`, the five stages, `plan` and `explain`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, cast

import typer
from rich.console import Console

from data.store import Store
from flows.cli.app import answers, app
from flows.config.load import dump, load_recipe
from flows.reporting import console as terminal
from flows.reporting.messages import DEFAULT_STORE
from flows.rounds import explain_key
from flows.rounds.dry_run import plan_lines, to_look_at
from flows.rounds.run_round import begin
from tasks.stages import require_whole


class Stage(StrEnum):
    """The five, as the command line knows them."""

    GENERATE = "generate"
    SCORE = "score"
    CURATE = "curate"
    FINETUNE = "finetune"
    EVALUATE = "evaluate"


RecipeOption = Annotated[str, typer.Option("--recipe", "-r", help="YAML file with every setting.")]
StoreOption = Annotated[str, typer.Option("--store", "-s", help="Folder that keeps everything.")]
SetOption = Annotated[
    list[str],
    typer.Option("--set", help="Change a setting: a.b=c, any number of times.", metavar="KEY=VALUE"),
]
FromOption = Annotated[
    Stage | None,
    typer.Option("--from-stage", help="Start here; the stages before must be whole in the store."),
]
PlainOption = Annotated[
    bool, typer.Option("--plain", help="Without Prefect: the same work, the same results.")
]
DryOption = Annotated[bool, typer.Option("--dry-run", help="Only show what would run.")]

DEFAULT_RECIPE = "recipes/mini.yaml"
NOTHING_SET: list[str] = []


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
    terminal.choose(terminal.to_console(Console()))
    context = begin(recipe, store, set_, create=from_stage is None)
    if plain:
        from flows.rounds.plain import plain_round

        plain_round(context, from_stage)
        return None
    with prefect_ready(context.store, context.run_id):
        from flows.rounds.round import StageName, round_flow

        round_flow(
            store=context.generation.root,
            from_stage=cast(StageName, from_stage or "generate"),
            run=context.run_id,
        )
    return None


def _stage_command(stage: str, text: str) -> None:
    """Add the command of one stage."""

    @app.command(stage, help=text)
    @answers
    def command(
        recipe: RecipeOption = DEFAULT_RECIPE,
        store: StoreOption = DEFAULT_STORE,
        set_: SetOption = NOTHING_SET,
        plain: PlainOption = False,
    ) -> None:
        terminal.choose(terminal.to_console(Console()))
        context = begin(recipe, store, set_, create=stage == "generate")
        require_whole(context, stage)
        if plain:
            from flows.rounds.plain import plain_stage

            plain_stage(stage, context)
            return
        with prefect_ready(context.store, context.run_id):
            from flows.rounds.round import FLOWS

            FLOWS[stage](store=context.generation.root, run=context.run_id)


_stage_command("generate", "Stage 1 alone: clips from the policy.")
_stage_command("score", "Stage 2 alone: what the rewards say of the clips.")
_stage_command("curate", "Stage 3 alone: what is worth learning from.")
_stage_command("finetune", "Stage 4 alone: train the candidate policy.")
_stage_command("evaluate", "Stage 5 alone: before against after. Nobody is promoted.")


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
        return None
    return _show_plan(recipe, store, set_)


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
    with to_look_at(recipe, store, set_) as context:
        for line in explain_key.explain(context, key):
            print(line)


def _show_plan(recipe: str, store: str, set_: list[str]) -> None:
    console = Console()
    with to_look_at(recipe, store, set_) as context:
        for line in plan_lines(context):
            console.print(line, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def prefect_ready(store: Store, run_id: str) -> Iterator[None]:
    """Prefect as vidloop needs it: set, with a server to talk to (a temporary one where none is named)."""
    from flows.serving import prefect_settings

    prefect_settings.apply()
    named = prefect_settings.named_server()
    if named is not None:
        prefect_settings.check_server(named)
        yield
        return
    from flows.serving.temporary_server import TemporaryServer

    server = TemporaryServer(store.path(f"runs/{run_id}.prefect.log"))
    server.start()
    # Both take seconds: at the same time, on two cores.
    from prefect.settings import PREFECT_API_URL, temporary_settings

    server.wait()
    with temporary_settings({PREFECT_API_URL: server.url}):
        yield
