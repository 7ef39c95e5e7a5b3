"""Commands that read and tidy a store: `query`, `report`, `champion`, `gc`."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from data import champion
from data.store import Store
from flows.cli.app import answers, app, champion_app
from flows.cli.options import StoreOption
from flows.reporting.messages import DEFAULT_STORE


@app.command("query")
@answers
def query(
    sql: Annotated[
        str, typer.Argument(help='For example: "SELECT category, avg(value) FROM scores JOIN clips ..."')
    ],
    format_: Annotated[
        Literal["table", "csv", "json"], typer.Option("--format", "-f", help="How it is printed.")
    ] = "table",
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.0, help="That it may take; 0: as long as it takes.")
    ] = 60.0,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Ask the store in SQL (DuckDB).

    Views: prompts, clips, scores, scores_wide, examples, pairs, policies, evaluations, rounds, lineage and
    timings. `DESCRIBE clips` names the columns.
    """
    from data.queries import run_query

    names, rows = run_query(Store.open(store), sql, seconds or None)
    if format_ == "json":
        json.dump([dict(zip(names, row, strict=True)) for row in rows], sys.stdout, indent=1, default=str)
        print()
    elif format_ == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([["" if value is None else value for value in row] for row in rows])
    else:
        _print_table(names, rows)


@app.command("report")
@answers
def report(
    round_id: Annotated[
        str | None, typer.Argument(metavar="ROUND", help="A round; the newest if none is given.")
    ] = None,
    bundle: Annotated[
        str | None,
        typer.Option(
            "--bundle",
            metavar="FOLDER",
            help="Write a folder of evidence instead, which needs no vidloop to be checked.",
        ),
    ] = None,
    prompts: Annotated[
        int,
        typer.Option(
            "--prompts",
            min=0,
            help="Of a bundle: best, worst, most changed and random prompts, so many each.",
        ),
    ] = 3,
    draw: Annotated[int, typer.Option("--draw", help="Of a bundle: seed of the random ones.")] = 0,
    weights: Annotated[
        bool, typer.Option("--weights", help="Of a bundle: with the adapters, and not only their digests.")
    ] = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Write a round as one self-contained HTML page, or as a folder of evidence, and print its path."""
    opened = Store.open(store)
    if bundle is not None:
        from flows.reporting.bundle import Options, write_bundle

        print(write_bundle(opened, round_id, Path(bundle), Options(prompts, draw, weights)))
        return
    from flows.reporting import build_report

    print(build_report(opened, round_id))


@champion_app.command("show")
@answers
def show(store: StoreOption = DEFAULT_STORE) -> None:
    """Print the champion's policy id, the round that made it so, and where its adapter lies."""
    opened = Store.open(store)
    present = champion.read(opened)
    if present is None:
        print("no champion yet: the recipe's base model is the policy to beat")
        return
    print(f"{present.policy_id}  since {present.round_id}")
    if present.approved_by:
        print(f"approved by {present.approved_by}: {present.reason}")
    from data.policies import policies
    from tasks.policies import policy_of

    held = policies(opened)
    if present.policy_id in held:
        policy = policy_of(held, present.policy_id)
        for expert, path in policy.experts or (("", policy.adapter_path),):
            print(f"adapter {opened.path(path)}" + (f" ({expert} noise)" if expert else ""))


@champion_app.command("set")
@answers
def set_champion(
    policy: Annotated[str, typer.Argument(help="Id of a policy in the store.")],
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Make a policy the champion by hand."""
    print(champion.set_champion(Store.open(store), policy).policy_id)


@champion_app.command("rollback")
@answers
def rollback(store: StoreOption = DEFAULT_STORE) -> None:
    """Go back to the champion before this one."""
    now = champion.rollback(Store.open(store))
    print(now.policy_id if now else "no champion: the recipe's base model is the policy to beat")


@app.command("gc")
@answers
def gc(
    delete: Annotated[
        bool, typer.Option("--delete", help="Remove them; without it they are only counted.")
    ] = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Find what no committed work reaches and nobody has touched for a day."""
    from data.store.gc import collect

    found = collect(Store.open(store), delete)
    what = "removed" if found.deleted else "would be removed (--delete does it)"
    size = f"{len(found.files)} files, {found.bytes / 1e6:.1f} MB"
    print(f"{size} {what}; {found.young} younger ones are left alone")


def _print_table(names: list[str], rows: list[tuple[Any, ...]]) -> None:
    table = Table(*names, box=None, pad_edge=False, header_style="bold")
    for column in table.columns:
        column.overflow = "fold"
    for row in rows:
        table.add_row(*map(_cell, row))
    console = Console()
    if not console.is_terminal:
        # A file or a pipe has no width to fit into.
        wide = Console(width=sys.maxsize)
        console = Console(width=max(console.width, wide.measure(table).maximum))
    console.print(table, markup=False, highlight=False)
    console.print(f"({len(rows)} {'row' if len(rows) == 1 else 'rows'})", highlight=False)


def _cell(value: Any) -> Text:
    said = f"{value:.6g}" if isinstance(value, float) else "" if value is None else str(value)
    return Text(said)
