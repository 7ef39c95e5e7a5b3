"""Calibrations as one self-contained HTML page: the reliability plots, the tables."""

from __future__ import annotations

import io
from collections.abc import Sequence
from html import escape
from typing import Final

from rewards.calibration import Bin, Figures
from tasks.calibrate import HARMLESS, Calibration, Control

_STYLE: Final = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 } caption { text-align: left; font-weight: 600 }
td, th { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #8884 }
td:first-child, th:first-child { text-align: left } svg { max-width: 26rem; background: #fff }
"""
_NAMES: Final = (
    "clips", "failed", "label 1", "passed", "accuracy", "precision", "recall", "specificity", "AUC", "ECE",
)  # fmt: skip


def page(found: Sequence[Calibration]) -> str:
    """The page of one calibration, or of several: side by side first, then each."""
    names = escape(", ".join(one.reward for one in found))
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        f"<title>Calibration of {names}</title><style>{_STYLE}</style>"
        f"{_beside(found) if len(found) > 1 else ''}{''.join(map(_section, found))}</html>\n"
    )


def _beside(found: Sequence[Calibration]) -> str:
    figures = [[one.reward, f"{one.threshold:.3g}", *_cells(one.overall)] for one in found]
    controls = [
        [name, *(_fall(one.controls.get(name)) for one in found), _should(name)]
        for name in dict.fromkeys(name for one in found for name in one.controls)
    ]
    rewards = [one.reward for one in found]
    return (
        f"<h1>Side by side, against {escape(found[0].labels)}</h1>"
        f"{_table('Agreement', ('', 'threshold', *_NAMES), figures)}"
        f"{_table('Good clips, tampered with: share that passes', ('', *rewards, 'should'), controls)}"
    )


def _section(found: Calibration) -> str:
    rows = [[name, *_cells(one)] for name, one in {"all": found.overall, **found.categories}.items()]
    tampered = [
        [name, str(one.n), _share(one.intact), _share(one.tampered), _should(name)]
        for name, one in found.controls.items()
    ]
    still = "<p><b>It passes frozen clips nearly as it passes moving ones.</b></p>" if found.still else ""
    return (
        f"<h1>{escape(found.reward)} against {escape(found.labels)}</h1>"
        f"<p>Version {escape(found.version)}; a clip passes from {found.threshold:.3g} on.</p>{still}"
        f"{reliability_plot(found.bins)}"
        f"{_table('Agreement', ('', *_NAMES), rows)}"
        f"{_table('Good clips, tampered with', ('', 'clips', 'intact', 'tampered', 'should'), tampered)}"
    )


def _fall(one: Control | None) -> str:
    return "-" if one is None else f"{_share(one.intact)} > {_share(one.tampered)}"


def _should(control: str) -> str:
    return "stay" if control in HARMLESS else "fall"


def reliability_plot(bins: list[Bin]) -> str:
    """P(yes) against the share that is right, as inline SVG; the diagonal is a calibrated judge."""
    if not bins:
        return ""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "calibration", "svg.fonttype": "none"}):
        figure = Figure(figsize=(4.2, 3.6), layout="constrained")
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color="#999", linewidth=1)
        shown = [(one.value, one.share, one.n) for one in bins]
        points = [(x, y, n) for x, y, n in shown if x is not None and y is not None]
        most = max((n for _, _, n in points), default=1)
        for x, y, n in points:
            axes.scatter(x, y, s=12 + 120 * n / most, color="#2563eb")
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="value (P of yes)", ylabel="share that is right")
        axes.set_title("Reliability; area: number of clips", fontsize=10)
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None})
    return written.getvalue().partition("?>")[2].partition("?>")[2] or written.getvalue()


def _cells(one: Figures) -> list[str]:
    shares = (
        one.positives,
        one.passed,
        one.accuracy,
        one.precision,
        one.recall,
        one.specificity,
        one.auc,
        one.ece,
    )
    return [str(one.n), str(one.failed), *map(_share, shares)]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _table(caption: str, names: tuple[str, ...], rows: list[list[str]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><caption>{escape(caption)}</caption><tr>{head}</tr>{body}</table>"
