"""Command `nightly`: one more round from the champion, for cron and for whoever does without a server."""

from __future__ import annotations

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
from flows.rounds import notify
from tasks.rounds import new_round_id


@app.command("nightly")
@answers
def nightly_command(
    recipe: RecipeOption = DEFAULT_RECIPE,
    store: StoreOption = DEFAULT_STORE,
    set_: SetOption = NOTHING_SET,
    plain: PlainOption = False,
) -> None:
    """A night, now: one round from the champion on clips of its own. Interrupted, it goes on next time."""
    read = load_recipe(recipe, set_)
    console.choose(console.to_console(Console()))
    opened = Store.open(store, create=True)
    open_round(read, opened, "check")  # what is wrong is found before a server starts
    if not plain:
        with prefect_ready(opened, new_round_id()):
            from flows.rounds.nightly import nightly_flow

            nightly_flow(recipe=recipe, store=str(opened.root), overrides=set_)
        return
    from flows.rounds.campaign import finish
    from flows.rounds.night import Skipped, night, summary_of
    from flows.rounds.plain import plain_round

    played = night(read, opened, plain_round)
    if isinstance(played, Skipped):
        console.info(f"This night is not played: {played.why}")
        return
    notify.tell_verdict(summary_of(opened, played))
    finish(opened, played)
