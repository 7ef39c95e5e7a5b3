"""What the captions of the category "directional movement" promise."""

from __future__ import annotations

import numpy as np

from miniature.world import laws
from miniature.world.catalog import FLOOR
from miniature.world.checks.finding import (
    AWAY,
    Finding,
    blame,
    law,
    motion,
)
from miniature.world.curve_fit import best_trial, line, reaches, solve, spread, within
from miniature.world.tracking import Floats, Sight, Track


def _moves(sight: Sight, values: Floats, sign: float, word: str, least: float = 0.27) -> list[Finding]:
    """Constant velocity along one axis."""
    track = sight.tracks[0]
    where = track.seen
    speed, error = line(sight.t, values, where)
    return [
        motion(reaches(sign * speed, least), blame(track, values, sign, f"hardly moves {word}")),
        law(error, AWAY, blame(track, values, sign, "does not keep its speed")),
    ]


def _keeps(track: Track, values: Floats, word: str) -> Finding:
    return law(spread(values, track.seen), AWAY, f"{track} {word}")


def move_left(sight: Sight) -> list[Finding]:
    """Constant speed to the left, at one height."""
    track = sight.tracks[0]
    return [*_moves(sight, track.x, -1.0, "to the left"), _keeps(track, track.y, "does not keep its height")]


def move_right(sight: Sight) -> list[Finding]:
    """Constant speed to the right, at one height."""
    track = sight.tracks[0]
    return [*_moves(sight, track.x, 1.0, "to the right"), _keeps(track, track.y, "does not keep its height")]


def move_up(sight: Sight) -> list[Finding]:
    """Constant speed upward, in one column."""
    track = sight.tracks[0]
    return [*_moves(sight, track.y, -1.0, "up"), _keeps(track, track.x, "drifts sideways")]


def slide(sight: Sight) -> list[Finding]:
    """Slows down steadily on the floor and comes to rest."""
    track, t, seen = sight.tracks[0], sight.t, sight.tracks[0].seen
    stop = np.arange(0.54, 0.87, 0.02)[:, None]
    course = laws.friction(t[seen], 0.0, 1.0, stop)
    coefficients, residuals = solve(np.stack([np.ones_like(course), course], axis=2), track.x[seen])
    best, error = best_trial(residuals)
    late = track.x[seen & (t >= 0.86)]
    rest = float(np.ptp(late)) if len(late) else 1.0
    return [
        motion(reaches(coefficients[best, 1], 0.25), blame(track, track.x, 1.0, "hardly moves to the right")),
        motion(within(rest, 0.045), f"{track} does not come to rest"),
        law(error, AWAY, blame(track, track.x[: len(t) // 2], 1.0, "does not slow down steadily")),
        law(float(np.abs(track.y + track.ry - FLOOR)[seen].max()), 0.05, f"{track} leaves the floor"),
    ]


def move_diagonal(sight: Sight) -> list[Finding]:
    """Constant speed to the right and upward at once."""
    track = sight.tracks[0]
    return [*_moves(sight, track.x, 1.0, "to the right"), *_moves(sight, track.y, -1.0, "up")]
