"""The charts of the pages. Each is drawn at phone width, so that nothing becomes unreadable there."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from flows.reporting import words
from flows.reporting.facts import Comparison, RewardSpread
from flows.reporting.svg import AFTER, BEFORE, INK, LOSER, MUTED, inline, new_figure
from rewards.calibration import Bin
from tasks.campaign_record import Played


def success_chart(comparisons: Sequence[Comparison], rate: bool = True) -> str:
    """Success before and after with 95% intervals, one line a category.

    Args:
        comparisons: one a line.
        rate: the metric is a share of clips; else its values stand where they come to lie.
    """
    figure, axes = new_figure(0.62 * len(comparisons) + 0.75, grid="x")
    for row, line in enumerate(reversed(comparisons)):
        for measured, colour, offset, mark in (
            (line.before, BEFORE, 0.16, "o"),
            (line.after, AFTER, -0.16, "D"),
        ):
            if measured.value is None:
                continue
            axes.plot(measured.value, row + offset, mark, color=colour, markersize=5.5, clip_on=False)
            if measured.low is not None and measured.high is not None:
                ends = [measured.low, measured.high]
                axes.plot(ends, [row + offset] * 2, color=colour, linewidth=2, solid_capstyle="butt")
    axes.set_yticks(range(len(comparisons)), [line.label for line in reversed(comparisons)])
    axes.set_ylim(-0.6, len(comparisons) - 0.4)
    if rate:
        axes.set_xlim(0, 1)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"])
    axes.tick_params(axis="y", length=0)
    show = functools.partial(words.percent, digits=0) if rate else words.number
    said = "; ".join(
        f"{line.label}: {show(line.before.value)} before, {show(line.after.value)} after"
        for line in comparisons
    )
    return inline(figure, f"Success by category. {said}.")


def rounds_chart(rounds: Sequence[Played]) -> str:
    """A metric over rounds with 95% intervals: where each round starts, and what its candidate reached."""
    figure, axes = new_figure(2.6)
    said = []
    for one in rounds:
        for value, interval, colour, offset, mark, filled in (
            (one.primary.before, one.intervals["before"], BEFORE, -0.1, "o", True),
            (one.primary.after, one.intervals["after"], AFTER, 0.1, "D", one.promoted),
        ):
            if value is None:
                continue
            if interval is not None:
                axes.plot([one.number + offset] * 2, list(interval), color=colour, linewidth=2)
            face = colour if filled else "none"
            axes.plot(one.number + offset, value, mark, color=colour, markerfacecolor=face, markersize=5.5)
        before, after = map(words.number, (one.primary.before, one.primary.after))
        said.append(f"round {one.number}: {before} before, {after} after")
    axes.set_xticks([one.number for one in rounds])
    axes.set_xlim(rounds[0].number - 0.5, rounds[-1].number + 0.5)
    axes.set_xlabel("round")
    return inline(figure, f"{rounds[0].primary.metric} over rounds. {'; '.join(said)}.")


def reward_chart(spread: RewardSpread, what: str = "The reward") -> str:
    """How often a reward, or a judge's question, gave which value to the training clips."""
    import numpy as np

    figure, axes = new_figure(1.9)
    values = np.asarray(spread.values)
    if set(spread.values) <= {0.0, 1.0}:
        counts = [int((values == 0).sum()), int((values == 1).sum())]
        axes.bar([0, 1], counts, width=0.6, color=[LOSER, AFTER])
        axes.set_xticks([0, 1], [f"0 ({counts[0]} clips)", f"1 ({counts[1]} clips)"])
        axes.set_xlim(-0.6, 1.6)
    else:
        axes.hist(values, bins=min(30, max(5, len(values) // 8)), color=AFTER)
        axes.axvline(float(np.median(values)), color=INK, linewidth=1.2, linestyle=(0, (3, 2)))
    axes.set_ylabel("clips")
    return inline(figure, f"{what} {spread.reward} over {len(values)} training clips: {spread_note(spread)}.")


def spread_note(spread: RewardSpread, of: str = "clips") -> str:
    """A reward's values in words; `of` says what each is the value of."""
    import numpy as np

    if not spread.values:
        return "no value"
    if set(spread.values) <= {0.0, 1.0}:
        ones = sum(value == 1.0 for value in spread.values)
        return f"{len(spread.values) - ones} {of} have 0, {ones} have 1"
    low, middle, high = np.percentile(spread.values, [5, 50, 95])
    return f"median {middle:.3g} (dashed), 5th to 95th percentile {low:.3g} to {high:.3g}"


def curve_chart(
    title: str,
    names: Sequence[str],
    curves: Mapping[str, Sequence[tuple[float, float]]],
    level: float | None = None,
) -> str:
    """The curves of these names, (step, value); `level` marks what chance or no change would give."""
    figure, axes = new_figure(1.9)
    said = []
    dashes = {"color": LOSER, "linestyle": (0, (4, 2))}
    styles: list[dict[str, Any]] = [{"color": AFTER}, dashes, {"color": BEFORE}]
    for name, style in zip(names, styles, strict=False):
        steps, values = zip(*curves[name], strict=True)
        axes.plot(steps, values, linewidth=1.6, label=name, **style)
        said.append(f"{name} from {values[0]:.3g} to {values[-1]:.3g}")
    if level is not None:
        axes.axhline(level, color=MUTED, linewidth=0.9, linestyle=(0, (1, 2)))
    if len(names) > 1:
        axes.legend(frameon=False, labelcolor=INK, fontsize=10.5)
    axes.set_xlabel("step")
    return inline(figure, f"{title}: {'; '.join(said)}.")


def reliability_chart(bins: Sequence[Bin]) -> str:
    """A judge's values against the share that is right; on the diagonal it is calibrated."""
    figure, axes = new_figure(3.6, grid=None)
    shown = [(one.value, one.share, one.n) for one in bins if one.value is not None and one.share is not None]
    most = max((clips for _, _, clips in shown), default=1)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1)
    for value, share, clips in shown:
        axes.scatter(value, share, s=12 + 120 * clips / most, color=AFTER)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="value (P of yes)", ylabel="share that is right")
    said = "; ".join(f"{share:.0%} right at {value:.2f} ({clips} clips)" for value, share, clips in shown)
    return inline(figure, f"Reliability, the area is the number of clips: {said}.")
