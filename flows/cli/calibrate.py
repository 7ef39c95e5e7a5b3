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
from flows.cli.round import DEFAULT_RECIPE, NOTHING_SET, RecipeOption, SetOption, StoreOption
from flows.config.load import load_recipe
from flows.config.recipe import Recipe
from flows.config.resolve import open_reward, open_round
from flows.reporting import console as terminal
from flows.reporting.messages import DEFAULT_STORE
from rewards.calibration import Figures
from rewards.judge.rubric import load_rubric
from tasks.calibrate import HARMLESS, Calibration, Control, calibrate, read_labels, write
from tasks.context import RESIDENTS
from tasks.units import Runner

_WIDE: Final = 120
_JUDGE: Final = ["judge"]
_FIGURES: Final = (
    "clips", "failed", "label 1", "passed", "accuracy", "precision", "recall", "AUC", "ECE",
)  # fmt: skip


@app.command("calibrate")
@answers
def calibrate_command(
    reward: Annotated[
        list[str],
        typer.Option("--reward", help="The judge: judge, clip, flow, ... Again for one more beside it."),
    ] = _JUDGE,
    labels: Annotated[
        str, typer.Option("--labels", help="oracle, or a CSV or Parquet file with clip_id and label.")
    ] = "oracle",
    threshold: Annotated[
        float | None, typer.Option("--threshold", help="Value that passes; default: the rubric's.")
    ] = None,
    controls: Annotated[
        int, typer.Option("--controls", min=0, help="So many good clips are frozen, shuffled, ...")
    ] = 100,
    recipe: RecipeOption = DEFAULT_RECIPE,
    store: StoreOption = DEFAULT_STORE,
    set_: SetOption = NOTHING_SET,
) -> None:
    """Compare judges with labels on the recipe's clips in the store, and try them on tampered ones."""
    from data.store import Store
    from flows.reporting.calibration import page
    from tasks.rounds import new_round_id

    read, opened, console = load_recipe(recipe, set_), Store.open(store), Console()
    if not console.is_terminal:
        console = Console(width=_WIDE)  # in a file or a pipe nothing is cut off
    terminal.choose(terminal.to_console(console))
    context = open_round(read, opened, new_round_id())
    names = list(dict.fromkeys(reward))
    if "physics" in names and labels == "oracle":
        raise ConfigError("--reward physics is the oracle: give it labels of your own with --labels FILE")
    if threshold is not None and len(names) > 1:
        raise ConfigError("--threshold is of one reward: values of different rewards are not on one scale")
    asked = open_reward(read, "physics") if labels == "oracle" else read_labels(Path(labels).expanduser())
    # All of them first: a wrong folder of the last is told before the first is asked anything.
    judges = [open_reward(read, name) for name in names]
    found = []
    for judge in judges:
        passes = threshold if threshold is not None else _threshold(read, judge.name)
        runner = Runner(context.workers, terminal.current())
        one = calibrate(context, judge, asked, passes, controls, runner)
        RESIDENTS.release()
        found.append(one)
        path = write(opened, one)
        _tell(console, one)
        html = opened.write_file(
            f"{path.relative_to(opened.root).with_suffix('.html')}", page([one]).encode()
        )
        console.print(f"Page: {html}", soft_wrap=True, highlight=False)
    if len(found) > 1:
        for table in (_beside(found), _controls_beside(found)):
            if table.row_count:
                console.print(table)
        html = opened.write_file(f"calibrations/{'+'.join(names)}.html", page(found).encode())
        console.print(f"Page of all: {html}", soft_wrap=True, highlight=False)


def _tell(console: Console, found: Calibration) -> None:
    for table in (_figures(found), _controls(found)):
        if table.row_count:
            console.print(table)
    if found.still:
        console.print("It passes frozen clips nearly as it passes moving ones: it may reward stillness.")


def _threshold(recipe: Recipe, reward: str) -> float | None:
    if reward == "judge":
        return load_rubric(recipe.judge.rubric).threshold
    return 0.5 if reward == "physics" else None


def _figures(found: Calibration) -> Table:
    table = _table(f"{found.reward} against {found.labels}, threshold {found.threshold:.3g}", _FIGURES)
    for group, one in {"all": found.overall, **found.categories}.items():
        table.add_row(group, *_cells(one))
    return table


def _beside(found: Sequence[Calibration]) -> Table:
    """One row a reward, over all clips; where a value is no probability it has no calibration error."""
    table = _table(f"side by side, against {found[0].labels}", ("threshold", *_FIGURES))
    for one in found:
        table.add_row(one.reward, f"{one.threshold:.3g}", *_cells(one.overall))
    return table


def _controls_beside(found: Sequence[Calibration]) -> Table:
    names = [one.reward for one in found]
    table = _table("good clips, tampered with: share that passes, intact > tampered", (*names, "should"))
    for control in dict.fromkeys(name for one in found for name in one.controls):
        shares = [_fall(one.controls.get(control)) for one in found]
        table.add_row(control, *shares, "stay" if control in HARMLESS else "fall")
    return table


def _fall(one: Control | None) -> str:
    if one is None or one.intact is None or one.tampered is None:
        return "-"
    return f"{one.intact:.3f} > {one.tampered:.3f}"


def _table(title: str, names: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for name in ("", *names):
        table.add_column(name, justify="left" if name in ("", "should") else "right")
    return table


def _cells(one: Figures) -> list[str]:
    shares = (one.positives, one.passed, one.accuracy, one.precision, one.recall, one.auc, one.ece)
    return [str(one.n), str(one.failed), *("-" if share is None else f"{share:.3f}" for share in shares)]


def _controls(found: Calibration) -> Table:
    table = _table("good clips, tampered with: share that passes", ("clips", "intact", "tampered", "should"))
    for name, one in found.controls.items():
        shares = ("-" if share is None else f"{share:.3f}" for share in (one.intact, one.tampered))
        table.add_row(name, str(one.n), *shares, "stay" if name in HARMLESS else "fall")
    return table
