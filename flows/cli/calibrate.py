"""Command `calibrate`: how far a judge is to be believed, or each of several side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from data.errors import ConfigError
from flows.cli.app import answers, app
from flows.cli.options import NOTHING_SET, RecipeOption, SetOption, StoreOption
from flows.config.load import load_recipe
from flows.config.resolve import open_reward, open_round, passes
from flows.config.rewards import ORACLE, taught_by
from flows.reporting import console as terminal
from flows.reporting.calibration import Grid, gain_grid, grids, lines_grid, page, side_by_side
from flows.reporting.messages import DEFAULT_RECIPE, DEFAULT_STORE
from rewards.people import NAME as PEOPLE
from tasks.calibrate import calibrate, draw_next, read_labels, write
from tasks.context import RESIDENTS
from tasks.label_gain import label_gain
from tasks.recalibrate import recalibrate
from tasks.units import Runner

_WIDE: Final = 132
_JUDGE: Final = ["judge"]


@app.command("calibrate")
@answers
def calibrate_command(
    reward: Annotated[
        list[str],
        typer.Option("--reward", help="The judge: judge, clip, flow, ... Again for one more beside it."),
    ] = _JUDGE,
    labels: Annotated[
        str,
        typer.Option(
            "--labels",
            help="oracle; people, or another reward of the recipe's (right from 0.5 on); or a CSV or Parquet "
            "file with clip_id and label.",
        ),
    ] = "oracle",
    threshold: Annotated[
        float | None, typer.Option("--threshold", help="Value that passes; default: the rubric's.")
    ] = None,
    controls: Annotated[
        int, typer.Option("--controls", min=0, help="So many good clips are frozen, shuffled, ...")
    ] = 100,
    fit: Annotated[
        str | None,
        typer.Option(
            "--fit", metavar="FILE", help="Write lines by which P(yes) becomes what the labels say."
        ),
    ] = None,
    draw: Annotated[
        int | None,
        typer.Option("--draw", min=1, help="Draw so many clips to label next, uncertain ones first."),
    ] = None,
    gain: Annotated[
        str | None,
        typer.Option(
            "--gain", metavar="ROUND", help="Only estimate that round's gain from labels and judge."
        ),
    ] = None,
    recipe: RecipeOption = DEFAULT_RECIPE,
    store: StoreOption = DEFAULT_STORE,
    set_: SetOption = NOTHING_SET,
) -> None:
    """Compare judges with labels on the recipe's clips in the store, and try them on tampered ones."""
    from data.store import Store
    from tasks.round_ids import new_round_id

    read, opened, console = load_recipe(recipe, set_), Store.open(store), Console()
    if not console.is_terminal:
        console = Console(width=_WIDE)  # in a file or a pipe nothing is cut off
    terminal.choose(terminal.to_console(console))
    context = open_round(read, opened, new_round_id(opened))
    names = list(dict.fromkeys(reward))
    if taught_by(labels) in names:
        raise ConfigError(
            f"--reward {taught_by(labels)} is what gives the labels: give it others, --labels FILE"
        )
    if threshold is not None and len(names) > 1:
        raise ConfigError("--threshold is of one reward: values of different rewards are not on one scale")
    if (fit is not None or draw is not None or gain is not None) and len(names) > 1:
        raise ConfigError("--fit, --draw and --gain are of one judge: name it with --reward, once")
    by = taught_by(labels)
    named = by in (taught_by(ORACLE), PEOPLE, *read.rewards)
    asked = open_reward(read, by, opened) if named else read_labels(Path(labels).expanduser())
    if gain is not None:
        said, estimate = label_gain(opened, gain, names[0], asked)
        _show(console, [gain_grid(f"gain of {gain}, {names[0]} and {said}", estimate)])
        return
    # All of them first: a wrong folder of the last is told before the first is asked anything.
    judges = [open_reward(read, name, opened) for name in names]
    found = []
    for judge in judges:
        runner = Runner(context.workers, terminal.current())
        passing = passes(read, judge.name) if threshold is None else threshold
        one = calibrate(context, judge, asked, passing, controls, runner)
        RESIDENTS.release()
        found.append(one)
        path = write(opened, one)
        _show(console, grids(one))
        if one.still:
            console.print("It passes frozen clips nearly as it passes moving ones: it may reward stillness.")
        html = f"{path.removesuffix('.json')}.html"
        opened.write_file(html, page([one]).encode())
        console.print(f"Page: {opened.where(html)}", soft_wrap=True, highlight=False)
    if draw is not None:
        clips, path = draw_next(context, judges[0], asked, Runner(context.workers, terminal.current()), draw)
        where = f"{len(clips)} clips, those with drawn = 1 in {opened.where(path)}"
        console.print(f"Drawn to be labelled: {where}", soft_wrap=True, highlight=False)
    if fit is not None:
        runner = Runner(context.workers, terminal.current())
        lines, lacking = recalibrate(context, judges[0], asked, runner, Path(fit).expanduser())
        _show(console, [lines_grid(lines)])
        for line in lines:
            if line.after >= line.before:
                console.print(
                    f"The line of {line.what} does not help on clips left out: it wants more labels"
                )
        for why in lacking:
            console.print(f"No line of {why}", soft_wrap=True, highlight=False)
        console.print(f"Used by --set {names[0]}.recalibration={fit}", soft_wrap=True, highlight=False)
    if len(found) > 1:
        _show(console, side_by_side(found))
        html = f"calibrations/{'+'.join(names)}.html"
        opened.write_file(html, page(found).encode())
        console.print(f"Page of all: {opened.where(html)}", soft_wrap=True, highlight=False)


def _show(console: Console, tables: Sequence[Grid]) -> None:
    for grid in tables:
        if grid.rows:
            table = Table("", *grid.columns, title=grid.title, title_justify="left")
            for column in table.columns[1:]:
                column.justify = "left" if column.header == "should" else "right"
            for row in grid.rows:
                table.add_row(*row)
            console.print(table)
