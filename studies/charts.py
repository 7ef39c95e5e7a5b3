"""The plots of docs/study.md, as SVG files beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from flows.reporting.svg import standalone
from studies.facts import Effect, Facts
from studies.grid import CONTROL, IN_A_ROW
from studies.tables import groups

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Told apart without colour too.
_MARKS: Final = "os^DvP"
_GAIN: Final = "gain over the base (points)"


def charts(facts: Facts) -> dict[str, bytes]:
    """SVG files by name; only of what the study has. The same figures give the same bytes."""
    found = {"study-gains.svg": _drawn(facts, _gains, 8.0, 4.2)}
    if facts.where(variant="noise"):
        found["study-noise.svg"] = _drawn(facts, _noise, 5.0, 3.4)
    if facts.where(variant=IN_A_ROW, value=""):
        found["study-rounds.svg"] = _drawn(facts, _rounds, 5.0, 3.4)
    return found


def _gains(facts: Facts, axes: Axes) -> None:
    """Gain of every objective under every feedback, with its interval."""
    trained = [name for name in facts.objectives if name != CONTROL]
    width = 0.8 / max(1, len(facts.feedbacks))
    for index, feedback in enumerate(facts.feedbacks):
        shift = width * (index - (len(facts.feedbacks) - 1) / 2)
        effects = {
            place + shift: facts.effect(facts.main(feedback, name)) for place, name in enumerate(trained)
        }
        _points(axes, effects, feedback, index, line="none")
    control = facts.effect(facts.main("", CONTROL))
    if control is not None:
        axes.axhline(100 * control.value, linestyle=":", color="grey", label=CONTROL)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xticks(range(len(trained)), trained)
    axes.set_ylabel(_GAIN)
    axes.legend(fontsize=8, ncols=3)


def _noise(facts: Facts, axes: Axes) -> None:
    """Gain by share of wrong labels."""
    for index, ((objective,), rows) in enumerate(groups(facts.where(variant="noise"), "objective")):
        effects = {100 * share: facts.effect(found) for (share,), found in groups(rows, "noise")}
        _points(axes, effects, objective, index, line="-")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xlabel("wrong labels (%)")
    axes.set_ylabel(_GAIN)
    axes.legend(fontsize=8)


def _rounds(facts: Facts, axes: Axes) -> None:
    """Success after each round of the study's own row, seed by seed; a refused candidate is a hollow mark."""
    chosen = groups(facts.where(variant=IN_A_ROW, value=""), "seed")
    for index, ((seed,), rows) in enumerate(chosen):
        held = sorted(rows, key=lambda row: row.rounds)
        style: dict[str, Any] = {"color": f"C{index}", "marker": _MARKS[index % len(_MARKS)]}
        levels = [held[0].before, *(row.after if row.promoted else row.before for row in held)]
        champion = {number: level for number, level in enumerate(levels) if level is not None}
        axes.plot([*champion], [*champion.values()], label=f"seed {seed}", **style)
        refused = {row.rounds: row.after for row in held if row.after is not None and not row.promoted}
        if refused:
            axes.plot([*refused], [*refused.values()], linestyle="none", fillstyle="none", **style)
    axes.set_xlabel("rounds")
    axes.set_ylabel("success")
    axes.set_ylim(0, 1)
    axes.legend(fontsize=8)


def _points(axes: Axes, effects: Mapping[float, Effect | None], label: str, index: int, line: str) -> None:
    held = {place: effect for place, effect in effects.items() if effect is not None}
    # Bootstrap intervals need not hold the estimate; bars cannot be negative.
    bars = [
        [max(0.0, 100 * (one.value - one.low)) if one.low is not None else 0.0 for one in held.values()],
        [max(0.0, 100 * (one.high - one.value)) if one.high is not None else 0.0 for one in held.values()],
    ]
    mark = _MARKS[index % len(_MARKS)]
    values = [100 * one.value for one in held.values()]
    axes.errorbar([*held], values, yerr=bars, marker=mark, linestyle=line, capsize=2, label=label)


def _drawn(facts: Facts, draw: Callable[[Facts, Axes], None], width: float, height: float) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    draw(facts, figure.subplots())
    return standalone(figure, "vidloop")
