"""What the captions of the category "directional movement" promise."""

from __future__ import annotations

import numpy as np

from miniature.world import laws
from miniature.world.catalog import FLOOR
from miniature.world.checks.finding import AWAY, Criteria, Finding, blame, drifts, keeps, law, motion
from miniature.world.curve_fit import best_trial, line, reaches, solve, within
from miniature.world.tracking import Floats, Sight


def _moves(sight: Sight, values: Floats, sign: float, word: str) -> list[Finding]:
    """Constant velocity along one axis."""
    track = sight.tracks[0]
    speed, error = line(sight.t, values, track.seen)
    return [
        motion(reaches(sign * speed, 0.27), blame(track, values, sign, f"hardly moves {word}")),
        law(error, AWAY, blame(track, values, sign, "does not keep its speed")),
    ]


def _sideways(sight: Sight, sign: float, word: str) -> list[Finding]:
    track = sight.tracks[0]
    return [*_moves(sight, track.x, sign, word), keeps(track, track.y, "does not keep its height")]


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


def _up(sight: Sight) -> list[Finding]:
    return _moves(sight, sight.tracks[0].y, -1.0, "up")


CRITERIA: Criteria = {
    # Constant velocity, and the other coordinate stays what it is.
    "move_left": lambda sight: _sideways(sight, -1.0, "to the left"),
    "move_right": lambda sight: _sideways(sight, 1.0, "to the right"),
    "move_up": lambda sight: [*_up(sight), drifts(sight.tracks[0])],
    "slide": slide,
    "move_diagonal": lambda sight: [*_moves(sight, sight.tracks[0].x, 1.0, "to the right"), *_up(sight)],
}
