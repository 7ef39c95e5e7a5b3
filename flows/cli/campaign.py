"""Commands `improve`, `nightly`, `new-series`: rounds in a row from champion to champion, one, and anew."""

from __future__ import annotations

from typing import Annotated

import typer

from data.store import Store
from flows.cli.app import answers, app
from flows.cli.options import (
    NOTHING_SET,
    PlainOption,
    RecipeOption,
    SetOption,
    StoreOption,
    prefect_ready,
    report_on_terminal,
)
from flows.config.load import load_recipe
from flows.config.recipe import Recipe
from flows.config.resolve import open_round
from flows.reporting import console
from flows.reporting.messages import DEFAULT_RECIPE, DEFAULT_STORE
from flows.rounds import notify
from tasks.round_ids import new_round_id


@app.command("improve")
@answers
def improve_command(
    rounds: Annotated[
        int | None, typer.Option("--rounds", "-n", help="At most this many; default: the recipe's.")
    ] = None,
    recipe: RecipeOption = DEFAULT_RECIPE,
    store: StoreOption = DEFAULT_STORE,
    set_: SetOption = NOTHING_SET,
    plain: PlainOption = False,
) -> None:
    """Rounds in a row, from champion to champion. One that was interrupted goes on where it was."""
    overrides = set_ if rounds is None else [*set_, f"improve.rounds={rounds}"]
    read, opened = _opened(recipe, overrides, store, plain)
    if plain:
        from flows.rounds.campaign import finish, improve
        from flows.rounds.plain import plain_round

        finish(opened, improve(read, opened, plain_round))
        return
    with prefect_ready(opened, new_round_id(opened)):
        from flows.rounds.improve import improve_flow

        improve_flow(recipe=recipe, store=opened.url, overrides=overrides)


@app.command("nightly")
@answers
def nightly_command(
    recipe: RecipeOption = DEFAULT_RECIPE,
    store: StoreOption = DEFAULT_STORE,
    set_: SetOption = NOTHING_SET,
    plain: PlainOption = False,
) -> None:
    """A night, now: one round from the champion on clips of its own. Interrupted, it goes on next time."""
    read, opened = _opened(recipe, set_, store, plain)
    if not plain:
        with prefect_ready(opened, new_round_id(opened)):
            from flows.rounds.nightly import nightly_flow

            nightly_flow(recipe=recipe, store=opened.url, overrides=set_)
        return
    from flows.rounds.campaign import finish
    from flows.rounds.night import Skipped, night, summary_of
    from flows.rounds.plain import plain_round

    played = night(read, opened, plain_round)
    if isinstance(played, Skipped):
        console.info(f"This night is not played: {played.why}")
        return
    notify.tell_verdict(summary_of(opened, played), played)
    finish(opened, played)


@app.command("new-series")
@answers
def new_series(
    series: Annotated[
        str, typer.Argument(help="Id of the nights whose place it takes; their record has it.")
    ],
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Begin a series of nights from the champion as it is, with an error budget of its own."""
    from flows.rounds.night import begin_anew

    begun = begin_anew(Store.open(store), series)
    print(f"{begun.improve}  from policy {begun.start}")


def _opened(recipe: str, overrides: list[str], store: str, plain: bool) -> tuple[Recipe, Store]:
    """Recipe and store; what is wrong with them is found before a server starts."""
    read = load_recipe(recipe, overrides)
    report_on_terminal(recipe, overrides, plain)
    opened = Store.open(store, create=True)
    open_round(read, opened, "check")
    return read, opened
