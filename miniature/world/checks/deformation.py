"""What the captions of the category "deformable objects" promise."""

from __future__ import annotations

import numpy as np

from miniature.world import laws
from miniature.world.catalog import FLOOR
from miniature.world.checks.finding import (
    AWAY,
    BENT,
    Criteria,
    Finding,
    blame,
    drifts,
    falls,
    landing,
    law,
    motion,
)
from miniature.world.curve_fit import best_trial, reaches, solve, trials, within
from miniature.world.tracking import Bools, Floats, Sight, Track


def _strain(track: Track) -> Floats:
    """Strain a of (rx e^a, ry e^-a), of shapes whose half extents are equal at rest."""
    return np.asarray(0.5 * np.log(track.rx / track.ry))


def _keeps_area(track: Track) -> Finding:
    where = track.whole
    if not where.any():
        return law(1.0, 0.2, f"{track} is never wholly in the picture")
    area = track.area[where]
    return law(float(np.abs(np.log(area / np.median(area))).max()), 0.18, f"{track} does not keep its area")


def _on_floor(track: Track) -> list[Finding]:
    seen = track.seen
    below = float(np.abs(track.y + track.ry - FLOOR)[seen].max()) if seen.any() else 1.0
    return [law(below, 0.05, f"{track} does not stay on the floor"), drifts(track)]


def _strain_fit(strain: Floats, courses: Floats, where: Bools) -> tuple[float, float]:
    """Least-squares amplitude of trial courses [P, T]: amplitude and largest distance of the best."""
    coefficients, residuals = solve(courses[:, where, None], strain[where])
    best, error = best_trial(residuals)
    return float(coefficients[best, 0]), error


def _springs(sight: Sight, sign: float, word: str) -> list[Finding]:
    track, seen = sight.tracks[0], sight.tracks[0].seen
    strain = _strain(track)
    amplitude, error = _strain_fit(strain, laws.pulse(sight.t, 1.0)[None], seen)
    last = strain[seen][-1]
    return [
        motion(reaches(sign * amplitude, 0.2), f"{track} is not {word}"),
        motion(within(last, 0.2), f"{track} does not spring back"),
        law(error, BENT, f"{track} does not follow one elastic pulse"),
        _keeps_area(track),
        *_on_floor(track),
    ]


def press(sight: Sight) -> list[Finding]:
    """Flattened at the speed of the hand, flat to the end, the area kept."""
    track, t = sight.tracks[0], sight.t
    seen = track.seen
    contact, release = trials(np.arange(0.1, 0.6, 0.025), np.arange(0.5, 0.76, 0.025))
    share = laws.press(t, 0.0, 1.0, contact, np.maximum(release, contact + 0.02))[:, seen]
    _, residuals = solve(np.stack([1 - share, share], axis=2), track.ry[seen])
    _, error = best_trial(residuals)
    strain = _strain(track)
    hand = sight.hand.bottom
    deepest = int(np.nanargmax(hand)) if np.isfinite(hand).any() else 0
    gap = abs(hand[deepest] - track.top[deepest])
    return [
        motion(reaches(strain[seen][-1], 0.22), f"{track} does not stay flat"),
        motion(within(strain[seen][0], 0.2), f"{track} is flat before it is pressed"),
        law(gap, 0.07, f"no hand presses {track}"),
        law(error, 0.6 * AWAY, f"{track} is not flattened at the speed of the hand"),
        _keeps_area(track),
        *_on_floor(track),
    ]


def splat(sight: Sight) -> list[Finding]:
    """Falls freely, then gives way on the floor, the area kept."""
    track, t = sight.tracks[0], sight.t
    seen = track.seen
    bottom, strain = track.y + track.ry, _strain(track)
    (fall,), g, error = landing([bottom], t, [FLOOR])
    impact = float(laws.fall_time(FLOOR - fall, g))
    tau = np.arange(0.03, 0.16, 0.01)[:, None]
    late = np.arange(-0.04, 0.05, 0.02)[:, None, None]
    courses = laws.splat(t, 1.0, impact + late, tau).reshape(-1, len(t))
    amplitude, bend = _strain_fit(strain, courses, seen)
    return [
        *falls(track, bottom),
        motion(reaches(min(amplitude, strain[seen][-1]), 0.17), f"{track} does not splat"),
        law(error, AWAY, blame(track, bottom, 1.0, "does not fall freely")),
        law(bend, BENT, f"{track} does not give way as the law says"),
        _keeps_area(track),
        drifts(track),
    ]


def wobble(sight: Sight) -> list[Finding]:
    """Flat and tall in turns, less and less, the area kept."""
    track, t = sight.tracks[0], sight.t
    seen = track.seen
    damping, frequency = trials(np.arange(1.2, 2.8, 0.2), np.arange(1.7, 2.35, 0.05))
    strain = _strain(track)
    amplitude, error = _strain_fit(strain, laws.wobble(t, 1.0, damping, frequency), seen)
    late = np.abs(strain[seen & (t >= 0.72)])
    return [
        motion(reaches(amplitude, 0.28), f"{track} does not wobble"),
        motion(within(float(late.max()) if len(late) else 1.0, 0.3), f"{track} does not settle"),
        law(error, BENT, f"{track} does not swing as a damped body does"),
        _keeps_area(track),
        *_on_floor(track),
    ]


CRITERIA: Criteria = {
    # Bent at half time, back in shape at the end, the area kept.
    "squeeze": lambda sight: _springs(sight, 1.0, "squeezed flat"),
    "stretch": lambda sight: _springs(sight, -1.0, "stretched tall"),
    "press": press,
    "splat": splat,
    "wobble": wobble,
}
