"""The plots of docs/study.md, as SVG files beside it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from studies.facts import Effect, Facts
from studies.grid import CONTROL, IN_A_ROW

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Told apart without colour too.
_MARKS: Final = ("o", "s", "^", "D", "v", "P")


def charts(facts: Facts) -> dict[str, bytes]:
    """SVG files by name; only of what the study has. The same figures give the same bytes."""
    found = {"study-gains.svg": gains(facts)}
    if facts.where(variant="noise"):
        found["study-noise.svg"] = noise(facts)
    if facts.where(variant=IN_A_ROW):
        found["study-rounds.svg"] = rounds(facts)
    return found


def gains(facts: Facts) -> bytes:
    """Gain of every objective under every feedback, with its interval."""
    figure, axes = _figure(8.0, 4.2)
    trained = [name for name in facts.objectives if name != CONTROL]
    width = 0.8 / max(1, len(facts.feedbacks))
    for index, feedback in enumerate(facts.feedbacks):
        held = [(place, facts.effect(facts.main(feedback, name))) for place, name in enumerate(trained)]
        known = [(place, effect) for place, effect in held if effect is not None]
        shifted = [place + width * (index - (len(facts.feedbacks) - 1) / 2) for place, _ in known]
        _points(axes, shifted, [effect for _, effect in known], feedback, index)
    control = facts.effect(facts.main("", CONTROL))
    if control is not None:
        axes.axhline(100 * control.value, linestyle=":", color="grey", label="unfiltered")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xticks(range(len(trained)), trained)
    axes.set_ylabel("gain over the base (points)")
    axes.legend(fontsize=8, ncols=3)
    return _svg(figure)


def noise(facts: Facts) -> bytes:
    """Gain by share of wrong labels."""
    figure, axes = _figure(5.0, 3.4)
    rows = facts.where(variant="noise")
    for index, objective in enumerate(sorted({row.objective for row in rows})):
        shares = sorted({row.noise for row in rows if row.objective == objective})
        held = [
            (share, facts.effect(facts.where(variant="noise", objective=objective, noise=share)))
            for share in shares
        ]
        known = [(100 * share, effect) for share, effect in held if effect is not None]
        _points(axes, [share for share, _ in known], [effect for _, effect in known], objective, index, "-")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xlabel("wrong labels (%)")
    axes.set_ylabel("gain over the base (points)")
    axes.legend(fontsize=8)
    return _svg(figure)


def rounds(facts: Facts) -> bytes:
    """Success after each round of the study's own row, seed by seed; a refused candidate is a hollow mark."""
    figure, axes = _figure(5.0, 3.4)
    rows = facts.where(variant=IN_A_ROW, value="")
    for index, seed in enumerate(sorted({row.seed for row in rows})):
        held = sorted((row for row in rows if row.seed == seed), key=lambda row: row.rounds)
        colour, mark = f"C{index}", _MARKS[index % len(_MARKS)]
        champion = [held[0].before, *(row.after if row.promoted else row.before for row in held)]
        known = [(number, level) for number, level in enumerate(champion) if level is not None]
        axes.plot(*zip(*known, strict=True), color=colour, marker=mark, label=f"seed {seed}")
        refused = [(row.rounds, row.after) for row in held if row.after is not None and not row.promoted]
        if refused:
            axes.plot(
                *zip(*refused, strict=True), color=colour, marker=mark, linestyle="none", fillstyle="none"
            )
    axes.set_xlabel("rounds")
    axes.set_ylabel("success")
    axes.set_ylim(0, 1)
    axes.legend(fontsize=8)
    return _svg(figure)


def _points(
    axes: Axes, places: Sequence[float], effects: Sequence[Effect], label: str, index: int, line: str = ""
) -> None:
    below = [100 * (one.value - one.low) if one.low is not None else 0.0 for one in effects]
    above = [100 * (one.high - one.value) if one.high is not None else 0.0 for one in effects]
    # Bootstrap intervals need not hold the estimate; bars cannot be negative.
    bars = [[max(0.0, one) for one in side] for side in (below, above)]
    axes.errorbar(
        places,
        [100 * one.value for one in effects],
        yerr=bars,
        marker=_MARKS[index % len(_MARKS)],
        linestyle=line or "none",
        capsize=2,
        label=label,
    )


def _figure(width: float, height: float) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("svg")
    # Without these a file would hold its time, and ids by chance.
    matplotlib.rcParams["svg.hashsalt"] = "vidloop"
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _svg(figure: Any) -> bytes:
    sink = io.BytesIO()
    figure.savefig(sink, format="svg", metadata={"Date": None})
    return sink.getvalue()
