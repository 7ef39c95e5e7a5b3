"""Findings, tolerances, and how a motion went wrong, in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from miniature.world import laws
from miniature.world.catalog import FLOOR
from miniature.world.curve_fit import reaches, spread, within
from miniature.world.tracking import Floats, Sight, Track

AWAY = 0.05  # how far from its law a subject may be found, in stage sides: 3.2 pixels of 64
BENT = 0.14  # the same for strains (natural logarithm of a proportion)
FEWEST = 4  # frames in which a subject must be seen for anything to be fitted


@dataclass(frozen=True)
class Finding:
    """One question and its answer: part is "identity", "motion" or "law", grade in [0, 1]."""

    part: str
    grade: float
    reason: str


Criteria = dict[str, Callable[[Sight], list[Finding]]]
"""Templates and what is asked of a clip of theirs."""


def motion(grade: float, reason: str) -> Finding:
    """A finding on what took place."""
    return Finding("motion", grade, reason)


def law(error: float, tolerance: float, reason: str) -> Finding:
    """A finding on how far from its equation something is."""
    return Finding("law", within(error, tolerance), reason)


def keeps(track: Track, values: Floats, otherwise: str) -> Finding:
    """A finding on a coordinate [T] that should stay what it is."""
    return law(spread(values, track.seen), AWAY, f"{track} {otherwise}")


def drifts(track: Track) -> Finding:
    """A finding on a subject that should stay in its column."""
    return keeps(track, track.x, "drifts sideways")


def unmeasured(reason: str) -> list[Finding]:
    """Too little is seen for any measurement."""
    return [motion(0.0, reason), Finding("law", 0.0, reason)]


def _halt(values: Floats) -> int | None:
    """First frame of a final standstill, if it lasts a fifth of the clip."""
    still = np.abs(values - values[-1]) <= 0.012
    moving = np.nonzero(~still)[0]
    first = int(moving[-1]) + 1 if len(moving) else 0
    return first if len(values) - first >= max(3, len(values) // 5) else None


def _turn(values: Floats) -> int | None:
    """Frame at which an increasing motion turns back."""
    top = int(values.argmax())
    return top if values[top] - values[top:].min() > 0.05 else None


def blame(track: Track, values: Floats, sign: float, otherwise: str) -> str:
    """Why a motion in the direction `sign` of one axis is not what it should be."""
    frames = np.nonzero(np.isfinite(values))[0]
    if not len(frames):
        return f"{track} is not seen while it should be moving"
    along = sign * values[frames]
    if np.ptp(along) < 0.04:
        return f"{track} does not move"
    if along[-1] - along[0] < -0.1:
        return f"{track} moves the wrong way"
    halt, turn = _halt(along), _turn(along)
    if turn is not None:
        return f"{track} turned back at frame {frames[turn]}"
    if halt is not None:
        return f"{track} stopped at frame {frames[halt]}"
    return f"{track} {otherwise}"


def half_width(track: Track) -> float:
    """Usual half width of a rigid subject."""
    return float(np.nanmedian(track.rx))


def landing(heights: list[Floats], t: Floats, floors: list[float]) -> tuple[list[float], float, float]:
    """Fit y = min(y0 + g t^2 / 2, floor) with one g for all: (y0 of each, g, largest distance)."""
    g = np.arange(2.4, 5.4, 0.1)[:, None, None]
    shift = np.arange(-0.03, 0.031, 0.01)[:, None]
    squares: Floats = np.zeros(len(g))
    residuals, origins = [], []
    for height, floor in zip(heights, floors, strict=True):
        where = np.isfinite(height)
        origin = height[where][0] + shift - 0.5 * g * t[where][0] ** 2
        off = laws.land(t[where], origin, g, floor) - height[where]  # [G, S, T]
        best = (off**2).sum(axis=2).argmin(axis=1)
        rows = np.arange(len(g))
        residuals.append(off[rows, best])
        origins.append(origin[rows, best, 0])
        squares = squares + (residuals[-1] ** 2).sum(axis=1)
    at = int(np.argmin(squares))
    error = max(float(np.abs(r[at]).max()) for r in residuals)
    return [float(o[at]) for o in origins], float(g[at, 0, 0]), error


def falls(track: Track, bottom: Floats) -> list[Finding]:
    """It comes down, as far as the floor and no farther."""
    seen = np.isfinite(bottom)
    lowest = float(bottom[seen].max())
    fallen = lowest - float(bottom[seen][0])
    reason = blame(track, bottom, 1.0, "hardly falls")
    near = 0.04 + 0.9 / (len(bottom) - 1)  # the impact may lie between two frames
    return [
        motion(reaches(fallen, 0.14), reason),
        motion(within(max(FLOOR - lowest, 0.0), near), f"{reason} and never reached the floor"),
        law(max(lowest - FLOOR, 0.0), 0.05, f"{track} fell through the floor"),
    ]
