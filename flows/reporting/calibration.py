"""Calibrations as tables, for the terminal and for one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from flows.reporting.charts import reliability_chart
from flows.reporting.page import template
from rewards.calibration import Figures
from rewards.few_labels import Estimate
from tasks.calibrate import HARMLESS, Calibration, Control
from tasks.recalibrate import Fitted

_FIGURES: Final = (
    "clips", "failed", "label 1", "passed", "accuracy", "precision", "recall", "specificity", "AUC", "ECE",
)  # fmt: skip
_RATE: Final = "share of all clips with label 1, labels drawn by lot, 95% interval over prompts"
_TAMPERED: Final = "good clips, tampered with: share that passes"


@dataclass(frozen=True)
class Grid:
    """A table: its title, its columns after the first, and its rows, each beginning with its name."""

    title: str
    columns: tuple[str, ...]
    rows: list[list[str]]


def grids(found: Calibration) -> list[Grid]:
    """What was found of one judge: agreement by category, and what tampering changed."""
    groups = {"all": found.overall, **found.categories}
    return [
        Grid(
            f"{found.reward} against {found.labels}, threshold {found.threshold:.3g}",
            _FIGURES,
            [[name, *_cells(one)] for name, one in groups.items()],
        ),
        _estimated(_RATE, found.rate),
        Grid(
            _TAMPERED,
            ("clips", "intact", "tampered", "should"),
            [
                [name, str(one.n), _share(one.intact), _share(one.tampered), _should(name)]
                for name, one in found.controls.items()
            ],
        ),
    ]


def side_by_side(found: Sequence[Calibration]) -> list[Grid]:
    """Several judges over all clips. Where values are no probabilities there is no calibration error."""
    controls = dict.fromkeys(name for one in found for name in one.controls)
    return [
        Grid(
            f"side by side, against {found[0].labels}",
            ("threshold", *_FIGURES),
            [[one.reward, f"{one.threshold:.3g}", *_cells(one.overall)] for one in found],
        ),
        Grid(
            f"{_TAMPERED}, intact > tampered",
            (*(one.reward for one in found), "should"),
            [[name, *(_fall(one.controls.get(name)) for one in found), _should(name)] for name in controls],
        ),
    ]


def lines_grid(lines: Sequence[Fitted]) -> Grid:
    """Lines that were fitted, with how good they are on clips that they were not fitted on."""
    return Grid(
        "recalibration: log loss and Brier score of clips left out, before and after",
        ("clips", "slope", "intercept", "log loss", "after", "Brier", "after"),
        [
            [one.what, str(one.clips), *map(_share, (one.line.slope, one.line.intercept)),
             *map(_share, (one.before, one.after, one.brier_before, one.brier_after))]
            for one in lines
        ],
    )  # fmt: skip


def page(found: Sequence[Calibration]) -> str:
    """The page of one calibration, or of several: side by side first, then each."""
    return template(
        "calibration.html.j2",
        names=", ".join(one.reward for one in found),
        beside=side_by_side(found) if len(found) > 1 else [],
        sections=[
            {"found": one, "grids": grids(one), "chart": reliability_chart(one.bins) if one.bins else ""}
            for one in found
        ],
    )


def gain_grid(title: str, found: Estimate) -> Grid:
    """A gain from labels alone, and from labels and judgements."""
    return _estimated(f"{title}: labels drawn by lot, 95% interval over prompts", found)


def _estimated(title: str, one: Estimate | None) -> Grid:
    columns = ("labels", "judged", "estimate", "from", "to", "as tight as")
    if one is None:
        return Grid(title, columns, [])
    worth = one.lacking if one.worth is None else f"{one.worth:.0f} labels"
    alone = [str(one.labels), "-", *map(_share, (one.alone, one.alone_low, one.alone_high)), "-"]
    both = [str(one.labels), str(one.clips), *map(_share, (one.value, one.low, one.high)), worth]
    return Grid(title, columns, [["labels alone", *alone], ["labels and judge", *both]])


def _cells(one: Figures) -> list[str]:
    shares = (
        one.positives, one.passed, one.accuracy, one.precision, one.recall, one.specificity, one.auc, one.ece,
    )  # fmt: skip
    return [str(one.n), str(one.failed), *map(_share, shares)]


def _fall(one: Control | None) -> str:
    return "-" if one is None else f"{_share(one.intact)} > {_share(one.tampered)}"


def _should(control: str) -> str:
    return "stay" if control in HARMLESS else "fall"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
