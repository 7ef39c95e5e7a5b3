"""Command `import clips`: videos that another tool made, as clips of the store."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table as Grid

from data.errors import ConfigError, DataError
from data.explain import validated
from data.outside import ConversionSettings, Source, Table, read_table
from data.records import Import
from data.store import Store
from flows.cli.app import answers, import_app
from flows.cli.options import StoreOption
from flows.config.load import load_recipe
from flows.reporting import console as terminal
from flows.reporting.messages import DEFAULT_STORE
from tasks import imports
from tasks.units import Runner

_WIDE: Final = 132
# Refused files that are named; `vidloop query` has them all.
_NAMED: Final = 10
_NOTHING: Final[list[str]] = []


@import_app.command("clips")
@answers
def import_clips_command(
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="A folder with a table of prompts, or the table itself.")
    ],
    name: Annotated[str, typer.Option("--name", help="What recipes call the set: clips.imported=NAME.")],
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", "-r", help="Take fps, frames, size and video file of its `generate`."),
    ] = None,
    fps: Annotated[
        float | None, typer.Option("--fps", help="Frames a second; default: each file's own.")
    ] = None,
    frames: Annotated[
        int | None, typer.Option("--frames", help="The first so many frames; default: all.")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option("--size", metavar="WxH", help="Pixels, as 832x480; default: each file's own."),
    ] = None,
    fit: Annotated[
        str | None, typer.Option("--fit", help="To another size: crop (default), pad, stretch or exact.")
    ] = None,
    repeats: Annotated[
        float | None,
        typer.Option("--repeats", help="Share of frames that may repeat the one before; default 0.1."),
    ] = None,
    ignore: Annotated[
        list[str], typer.Option("--ignore", metavar="COLUMN", help="A column that is of no use here.")
    ] = _NOTHING,
    workers: Annotated[int, typer.Option("--workers", min=1, max=64, help="Units at the same time.")] = 1,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Take videos from elsewhere: decoded by their content, brought to one form, or refused with the reason.

    The table (.csv, .jsonl, .parquet) has columns path and prompt; id and category if you like.
    """
    imports.check_name(name)
    said = {"fps": fps, "frames": frames, "fit": fit, "repeats": repeats, **_sides(size)}
    settings = _settings(recipe, {key: value for key, value in said.items() if value is not None})
    table = read_table(Path(path).expanduser(), ignore)
    opened = Store.open(store, create=True)
    console = Console()
    sources = _read(console, table)
    units = imports.shards(opened, table, sources, name, settings)
    runner = Runner(workers, terminal.to_console(console))
    made, rows = imports.import_clips(opened, name, units, runner)
    _show(console, table, rows)
    if not made.shards:
        raise DataError(f"no file was taken, so there is no set {name}")
    console.print(
        f"Set {name}: {made.clips} clips. A recipe names it: --set clips.imported={name}", soft_wrap=True
    )


def _sides(size: str | None) -> dict[str, int]:
    if size is None:
        return {}
    found = re.fullmatch(r"([0-9]{1,5})[xX]([0-9]{1,5})", size)
    if found is None:
        raise ConfigError(f"--size {size!r}: say width and height as 832x480")
    return {"width": int(found[1]), "height": int(found[2])}


def _settings(recipe: str | None, said: dict[str, Any]) -> ConversionSettings:
    if recipe is not None:
        how = load_recipe(recipe).generate
        form = {"fps": float(how.fps), "frames": how.frames, "width": how.width, "height": how.height}
        said = {**form, "video": how.video, **said}
    return validated(ConversionSettings, said, "options")


def _read(console: Console, table: Table) -> list[Source]:
    """The files, hashed, with a bar where there is a terminal."""
    columns = (TextColumn("    files read"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=len(table.entries))
        return imports.read_sources(table, lambda more: bar.advance(task, more))


def _show(console: Console, table: Table, rows: Sequence[Import]) -> None:
    """What became of the files: counted by reason, and the first that were refused by their lines."""
    if not console.is_terminal:
        console = Console(width=_WIDE)  # in a file or a pipe nothing is cut off
    counted: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for reason in [row.reason or ""] if row.reason else row.done or [""]:
            # Of reasons that differ in numbers the first stands for all.
            alike = (row.status, re.sub(r"[0-9]+(?:[.,][0-9]+)*", "#", reason))
            counted.setdefault(alike, []).append(reason)
    grid = Grid("files", "", "what was done, or why not", box=None, pad_edge=False, header_style="bold")
    grid.columns[0].justify = "right"
    for status in ("taken", "converted", "refused"):
        total = sum(row.status == status for row in rows)
        grid.add_row(str(total), status, "")
        for (of, _), reasons in counted.items():
            if of == status and reasons[0]:
                more = ", ..." if len(set(reasons)) > 1 else ""
                grid.add_row(str(len(reasons)), "", f"{reasons[0]}{more}")
    console.print(grid, markup=False, highlight=False)
    refused = [
        (entry.line, row) for entry, row in zip(table.entries, rows, strict=True) if row.status == "refused"
    ]
    for line, row in refused[:_NAMED]:
        console.print(
            f"{table.file}:{line}: {row.source}: {row.reason}", markup=False, highlight=False, soft_wrap=True
        )
    if len(refused) > _NAMED:
        where = f"name = '{rows[0].name}' AND status = 'refused'"
        command = f'vidloop query "FROM imports SELECT source, reason WHERE {where}"'
        console.print(
            f"and {len(refused) - _NAMED} more: {command}", markup=False, highlight=False, soft_wrap=True
        )
