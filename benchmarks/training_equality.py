"""Whether two ways to train are one: their loss curves, and what rounding alone does to such a curve.

Training amplifies rounding: the plain way started twice, on one GPU, from one adapter and one table of draws,
gives two curves some percent apart, since the sums of attention's backward pass have no fixed order. One pair
of runs says little of how far. So the plain way is run several times, and ours has to lie no further from
those runs than they lie from each other, within a factor. A run with another learning rate, which is to be
told apart, shows that the measure can fail.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import sqrt
from statistics import fmean
from typing import Any, Final

# Ours may lie this many times further from the plain runs than these lie from each other. The distances
# between four plain runs differ by a factor of 1.7 themselves.
_FACTOR: Final = 1.5
# Below this, relative, differences of a loss are what any other order of a sum does.
_FLOOR: Final = 2e-3
CONTROL_LR: Final = 1.25
"""What the learning rate of the run that is to be told apart is multiplied by."""


def distance(a: Sequence[float], b: Sequence[float]) -> float:
    """Root mean square, over the steps, of the difference of two losses relative to their mean."""
    return sqrt(fmean(((x - y) / ((x + y) / 2)) ** 2 for x, y in zip(a, b, strict=True)))


def equality(
    plain: Sequence[Sequence[float]], ours: Mapping[str, Sequence[float]], control: Sequence[float]
) -> dict[str, Any]:
    """Distances of the loss curves, and whether ours is plain's.

    Args:
        plain: curves of the plain way, two or more, alike but for rounding. All curves are compared over the
            steps that each of them has.
        ours: curves of ours, by name.
        control: a curve of ours with a learning rate `CONTROL_LR` times as high.
    """
    steps = min(map(len, [*plain, *ours.values(), control]))
    runs = [curve[:steps] for curve in plain]

    def away(curve: Sequence[float]) -> float:
        return fmean(distance(curve[:steps], run) for run in runs)

    between = [distance(a, b) for a, b in combinations(runs, 2)]
    allowed = max(_FLOOR, _FACTOR * fmean(between))
    found = {name: away(curve) for name, curve in ours.items()}
    return {
        "measure": f"root mean square over {steps} steps of the relative difference of the loss: of ours to "
        f"{len(runs)} plain runs, mean; of rounding between these, mean",
        **found,
        "rounding": fmean(between),
        "rounding_least": min(between),
        "rounding_most": max(between),
        "allowed": allowed,
        "control": away(control),
        "steps": steps,
        "plain_runs": len(runs),
        "ok": max(found.values()) <= allowed < away(control),
    }


def told(same: Mapping[str, Any]) -> str:
    """What `equality` found, in a line."""
    found = ", ".join(
        f"{label} {same[key]:.2%}"
        for key, label in (("ours", "ours"), ("ours_all_memory", "with all memory"))
        if key in same
    )
    least, most = same["rounding_least"], same["rounding_most"]
    return (
        f"loss curves over {same['steps']} steps: {found} from {same['plain_runs']} plain runs, these "
        f"{same['rounding']:.2%} from each other ({least:.2%} to {most:.2%}), allowed {same['allowed']:.2%}; "
        f"with {CONTROL_LR} times the learning rate {same['control']:.2%}: "
        f"{'equal' if same['ok'] else 'NOT EQUAL'}"
    )
