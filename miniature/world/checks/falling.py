"""What the captions of the category "falling down" promise."""

from __future__ import annotations

import numpy as np

from miniature.world import laws
from miniature.world.catalog import FLOOR, TABLE
from miniature.world.checks.finding import (
    AWAY,
    Criteria,
    Finding,
    blame,
    drifts,
    falls,
    half_width,
    landing,
    law,
    motion,
)
from miniature.world.curve_fit import best_trial, reaches, solve, trials, within
from miniature.world.tracking import Floats, Sight, Track


def _rest(track: Track) -> float:
    """Height of the subject's middle when it lies on the floor."""
    return FLOOR - float(np.nanmedian(track.ry))


def _fall(sight: Sight, bounces: bool) -> list[Finding]:
    track, t, seen = sight.tracks[0], sight.t, sight.tracks[0].seen
    rest, y = _rest(track), track.y
    if bounces:
        error = _bounce_error(t[seen], y[seen], rest)
        impact = int(np.nanargmax(np.where(t > 0.2, y, -1.0)))
        rise = float(y[impact] - np.nanmin(y[impact:]))
        then = motion(reaches(rise, 0.05), f"{track} does not bounce")
    else:
        _, _, error = landing([y], t, [rest])
        lowest = int(np.nanargmax(y))
        rise = float(y[lowest] - np.nanmin(y[lowest:]))
        then = motion(within(rise, 0.05), blame(track, y, 1.0, "does not rest on the floor"))
    return [
        *falls(track, y + track.ry),
        then,
        law(error, AWAY, _fall_fault(track, bounces)),
        drifts(track),
    ]


def _fall_fault(track: Track, bounces: bool) -> str:
    y = track.y[track.seen]
    if bounces and y[-4:].min() < y[0] - 0.05:
        return f"{track} bounces higher than it fell from"
    fault = "does not fall freely"
    return f"{track} {fault}" if bounces else blame(track, track.y, 1.0, fault)


def _bounce_error(t: Floats, y: Floats, rest: float) -> float:
    """Largest distance from the best bounce: a coarse grid over (y0, g, e), then a fine one around it."""
    best, error = (y[0], 3.8, 0.66), np.inf
    for wide, steps in (((0.02, 1.0, 0.18), (3, 17, 9)), ((0.01, 0.07, 0.03), (3, 5, 5))):
        axes = [np.linspace(b - w, b + w, n) for b, w, n in zip(best, wide, steps, strict=True)]
        y0, g, e = trials(*axes)
        residuals = laws.bounce(t, np.minimum(y0, rest - 0.01), g, rest, e) - y
        at, error = best_trial(residuals)
        best = (float(y0[at, 0]), float(g[at, 0]), float(e[at, 0]))
    return float(error)


def off_table(sight: Sight) -> list[Finding]:
    """Slides to the edge at constant speed, then flies as a thrown body does."""
    track, t, seen = sight.tracks[0], sight.t, sight.tracks[0].seen
    half_x, half_y = half_width(track), float(np.nanmedian(track.ry))
    height = TABLE - half_y
    leaves, g = trials(np.arange(0.2, 0.72, 0.02), np.arange(3.4, 5.9, 0.2))
    fall = np.maximum(t[seen] - leaves, 0.0)
    off_y = laws.land(fall, height, g, FLOOR - half_y) - track.y[seen]
    best, error = best_trial(off_y)
    landed = leaves[best, 0] + float(laws.fall_time(FLOOR - TABLE, g[best, 0]))
    until = np.minimum(t[seen], landed)
    (coefficients,), off_x = solve(np.stack([np.ones_like(until), until], axis=1)[None], track.x[seen])
    tail = coefficients[0] + coefficients[1] * leaves[best, 0] - half_x
    dropped = float(np.nanmax(track.y) - np.median(track.y[seen][:3]))
    slid = float(np.nanmax(track.x) - track.x[seen][0])
    return [
        motion(reaches(slid, 0.2), blame(track, track.x, 1.0, "hardly moves to the right")),
        motion(reaches(dropped, 0.12), f"{track} does not fall off the table"),
        law(error, AWAY, blame(track, track.y, 1.0, "does not fall as a thrown body does")),
        law(float(np.abs(off_x).max()), AWAY, blame(track, track.x, 1.0, "does not keep its speed")),
        law(abs(tail - sight.wood.right), 0.09, f"{track} does not fall at the edge of the table"),
    ]


def fall_together(sight: Sight) -> list[Finding]:
    """Both fall freely with the same acceleration, to the floor."""
    tracks = sight.tracks
    _, _, error = landing([track.y for track in tracks], sight.t, [_rest(track) for track in tracks])
    findings = [law(error, AWAY, f"{tracks[0]} and {tracks[1]} do not fall alike")]
    for track in tracks:
        findings += [*falls(track, track.y + track.ry), drifts(track)]
    return findings


def toss(sight: Sight) -> list[Finding]:
    """Rises from the floor and comes back to it on the parabola of free fall."""
    track, t, seen = sight.tracks[0], sight.t, sight.tracks[0].seen
    rest, y = _rest(track), track.y
    flight, height = trials(np.arange(0.78, 1.03, 0.02), np.arange(0.32, 0.62, 0.02))
    g = 8 * height / flight**2
    _, error = best_trial(laws.toss(t[seen], rest, g * flight / 2, g) - y[seen])
    risen, back = rest - float(np.nanmin(y)), float(y[seen][-1] - np.nanmin(y))
    return [
        motion(reaches(risen, 0.17), f"{track} is not thrown up"),
        motion(reaches(back, 0.14), f"{track} does not fall back down"),
        law(error, AWAY, f"{track} does not follow the parabola of free fall"),
        drifts(track),
    ]


CRITERIA: Criteria = {
    # Falls freely to the floor, and rises from it again, lower, or rests there.
    "bounce": lambda sight: _fall(sight, bounces=True),
    "drop": lambda sight: _fall(sight, bounces=False),
    "off_table": off_table,
    "fall_together": fall_together,
    "toss": toss,
}
