"""Command `improve`: rounds in a row, from champion to champion."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from data.store import Store
from flows.cli.app import answers, app
from flows.cli.round import (
    NOTHING_SET,
    PlainOption,
    RecipeOption,
    SetOption,
    StoreOption,
    prefect_ready,
)
from flows.config.load import load_recipe
from flows.config.resolve import open_round
from flows.reporting import console
from flows.reporting.messages import DEFAULT_RECIPE, DEFAULT_STORE
from tasks.rounds import new_round_id


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
    read = load_recipe(recipe, overrides)
    console.choose(console.to_console(Console()))
    opened = Store.open(store, create=True)
    open_round(read, opened, "check")  # what is wrong is found before a server starts
    if plain:
        from flows.rounds.campaign import finish, improve
        from flows.rounds.plain import plain_round

        finish(opened, improve(read, opened, plain_round))
        return
    with prefect_ready(opened, new_round_id()):
        from flows.rounds.improve import improve_flow

        improve_flow(recipe=recipe, store=str(opened.root), overrides=overrides)
