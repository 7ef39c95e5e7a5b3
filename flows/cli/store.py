"""Commands that read and tidy a store: `query`, `policies`, `report`, `champion`, `gc`, `compact`,
`scrub`.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from data import champion
from data.errors import ConfigError, DataError
from data.store import Damaged, Store, backend_of
from data.store.aside import FOLDER as ASIDE
from data.store.durable_files import write_durably
from data.store.format import heal_command
from flows.cli.app import answers, app, champion_app
from flows.cli.options import StoreOption
from flows.reporting.messages import DEFAULT_STORE

_POLICIES: Final = """
SELECT policy_id, objective, steps, base_id, array_to_string(parents, ' ') AS parents,
  (SELECT string_agg(round, ' ' ORDER BY round) FROM rounds WHERE policy_after = policies.policy_id) AS rounds
FROM policies ORDER BY rounds, policy_id
"""


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
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", metavar="FILE", help="Write a Parquet file (.parquet) instead."),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Ask the store in SQL (DuckDB).

    Views: prompts, clips, imports, latents, choices, scores, scores_wide, prompt_answers, labels, exclusions,
    counted_labels, examples, pairs, pair_segments, reference_errors, policies, evaluations, rounds, names,
    studies, inputs, lineage and timings.
    `DESCRIBE clips` names the columns.
    """
    from data.queries import run_query

    if out is not None and Path(out).suffix != ".parquet":
        raise ConfigError(f"--out {out}: say FILE.parquet; for text, --format csv or json and `> FILE`")
    names, rows = run_query(Store.open(store), sql, seconds or None)
    if out is not None:
        _write_parquet(Path(out).expanduser(), names, rows)
        return
    if format_ == "json":
        json.dump([dict(zip(names, row, strict=True)) for row in rows], sys.stdout, indent=1, default=str)
        print()
    elif format_ == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([["" if value is None else value for value in row] for row in rows])
    else:
        _print_table(names, rows)


@app.command("policies")
@answers
def policies_command(store: StoreOption = DEFAULT_STORE) -> None:
    """List the trained policies: what made each, over which base, in which rounds, and who is champion."""
    from data.queries import run_query

    opened = Store.open(store)
    present = champion.read(opened)
    names, rows = run_query(opened, _POLICIES)
    now = None if present is None else present.policy_id
    _print_table([*names, "champion"], [(*row, "yes" if row[0] == now else None) for row in rows])


@app.command("report")
@answers
def report(
    round_id: Annotated[
        str | None,
        typer.Argument(metavar="ROUND", help="A round, or how its id begins; default: the newest."),
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
    print(f"{present.policy_id}  {_since(present.round_id)}")
    if present.approved_by:
        print(f"approved by {present.approved_by}: {present.reason}")
    from data.policies import policies
    from tasks.policies import policy_of

    held = policies(opened)
    if present.policy_id in held:
        policy = policy_of(held, present.policy_id)
        for expert, path in policy.experts or (("", policy.adapter_path),):
            print(f"adapter {opened.where(path)}" + (f" ({expert} noise)" if expert else ""))


@champion_app.command("history")
@answers
def champion_history(store: StoreOption = DEFAULT_STORE) -> None:
    """Print every champion that was not rolled back, the oldest first, and who approved it."""
    for one in champion.history(Store.open(store)):
        approved = f"  approved by {one.approved_by}: {one.reason}" if one.approved_by else ""
        print(f"{one.policy_id}  {_since(one.round_id)}{approved}")


@champion_app.command("set")
@answers
def set_champion(
    policy: Annotated[str, typer.Argument(help="Id of a policy in the store, or its first digits.")],
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


@app.command("compact")
@answers
def compact_command(store: StoreOption = DEFAULT_STORE) -> None:
    """Gather the rows of finished work in few large files, so that queries stay quick. Rounds may run."""
    from data.store.compaction import compact

    done = compact(Store.open(store))
    print(f"{done.units} units gathered; {done.segments} segments, {done.left} units in none")


def _write_parquet(path: Path, names: list[str], rows: list[tuple[Any, ...]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        columns = [pa.array([row[place] for row in rows]) for place in range(len(names))]
    except pa.ArrowException as error:
        raise DataError(f"the answer is no table for Parquet: {error}") from None
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns, names=names), buffer)
    remedy = "make the folder writable for this user, or name another file with --out"
    write_durably(path.parent, path, buffer.getvalue(), replace=True, remedy=remedy)
    print(f"{path}: {len(rows)} {'row' if len(rows) == 1 else 'rows'}")


@app.command("scrub")
@answers
def scrub(
    heal: Annotated[
        bool,
        typer.Option("--heal", help="Move what is damaged to the store's folder aside/; nothing is deleted."),
    ] = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Look at every file of a store, hash what has a digest, and name what is damaged."""
    from tasks.scrub import scrub as look

    backend = backend_of(store)
    found = look(backend, heal)
    for fault in found:
        print(f"{fault.path}: {fault.why}")
    if not found:
        print("nothing is damaged")
    elif heal:
        print(
            f"{len(found)} damaged files set aside or mended ({backend.where(ASIDE)}); the commands that "
            "made them compute them anew"
        )
    else:
        told = f"{len(found)} files of {backend.url} are damaged"
        raise Damaged(f"{told}: `{heal_command(backend.url)}` sets them aside")


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


def _since(round_id: str) -> str:
    return round_id if round_id == champion.BY_HAND else f"since {round_id}"


def _cell(value: Any) -> Text:
    said = f"{value:.6g}" if isinstance(value, float) else "" if value is None else str(value)
    return Text(said)
