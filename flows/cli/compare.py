"""Command `compare`: what a recipe gains over several seeds."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from data.store import Store
from flows.cli.app import answers, app
from flows.cli.options import StoreOption
from flows.reporting.messages import DEFAULT_STORE

if TYPE_CHECKING:
    from flows.reporting.seeds import Spread

_NO_ROUNDS: list[str] = []


@app.command("compare")
@answers
def compare_command(
    rounds: Annotated[
        list[str],
        typer.Argument(
            metavar="[ROUND]...",
            help="Of several seeds; one, or none (the newest): it and all that differ in the seed alone.",
        ),
    ] = _NO_ROUNDS,
    format_: Annotated[
        Literal["text", "json"], typer.Option("--format", "-f", help="How it is printed.")
    ] = "text",
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """The gain of a recipe over seeds: mean, standard deviation, and how many seeds there are."""
    from flows.reporting.page import template
    from flows.reporting.read import find_summary
    from flows.reporting.seeds import alike, over, spread

    opened = Store.open(store)
    named = [find_summary(opened, name) for name in dict.fromkeys(rounds)]
    one = named[0] if named else find_summary(opened, None)
    found = spread(named) if len(named) > 1 else over(alike(opened, one))
    if format_ == "json":
        json.dump(_plain(found), sys.stdout, indent=1, allow_nan=False)
        print()
        return
    Console().print(
        template("seeds.txt.j2", found=found), end="", markup=False, highlight=False, soft_wrap=True
    )


def _plain(found: Spread) -> dict[str, Any]:
    rounds = [
        {
            "round": one.round,
            "seed": one.recipe.get("seed"),
            "promoted": one.promoted,
            **one.primary.model_dump(exclude={"metric"}),
        }
        for one in found.rounds
    ]
    said = {"metric": found.metric, "n": found.n, "mean": found.mean, "deviation": found.deviation}
    return {**said, "rounds": rounds}
