"""What the captions of the category "multiple objects" promise."""

from __future__ import annotations

import numpy as np

from miniature.world import laws
from miniature.world.checks.finding import (
    AWAY,
    FEWEST,
    Criteria,
    Finding,
    half_width,
    law,
    motion,
    unmeasured,
)
from miniature.world.curve_fit import best_trial, reaches, solve, spread
from miniature.world.tracking import Floats, Sight

# Share of the velocities before the contact that each subject has before and after it:
# shares[subject][speed] = (before, after).
Shares = list[list[tuple[float, float]]]


def _collision(sight: Sight, shares: Shares) -> tuple[list[Finding], Floats]:
    """Fit x_i = x_i0 + sum_j v_j (before_ij min(t, tc) + after_ij max(0, t - tc)) for one contact time tc.

    Returns findings on the fit, the contact and the heights, and the fitted speeds v_j, positive towards the
    side of the second subject.
    """
    tracks, t = sight.tracks, sight.t
    first, second = tracks[:2]
    where = np.logical_and.reduce([track.seen for track in tracks])
    if where.sum() < FEWEST:
        return unmeasured(f"{first} and {second} are hardly ever seen together"), np.zeros(2)
    t = t[where]
    side = 1.0 if np.median(second.x[where][:2]) > np.median(first.x[where][:2]) else -1.0
    contact = np.arange(0.06, 0.94, 0.01)[:, None]
    before, after = np.minimum(t, contact), np.maximum(t - contact, 0.0)  # [contacts, T]
    rows = []
    for i, by_speed in enumerate(shares):
        constants = [np.full_like(after, float(i == j)) for j in range(len(tracks))]
        speeds = [b * before + a * after for b, a in by_speed]
        rows.append(np.stack(constants + speeds, axis=2))
    seen = side * np.concatenate([track.x[where] for track in tracks])
    coefficients, residuals = solve(np.concatenate(rows, axis=1), seen)
    best, error = best_trial(residuals)
    found = coefficients[best]
    starts, speeds_found = found[: len(tracks)], found[len(tracks) :]
    at_contact = [
        start + contact[best, 0] * sum(b * v for (b, _), v in zip(by_speed, speeds_found, strict=True))
        for start, by_speed in zip(starts, shares, strict=True)
    ]
    gaps = [
        abs(at_contact[i + 1] - at_contact[i] - half_width(tracks[i]) - half_width(tracks[i + 1]))
        for i in range(len(tracks) - 1)
    ]
    height = max(spread(track.y, track.seen) for track in tracks)
    level = max(abs(float(np.nanmedian(track.y) - np.nanmedian(first.y))) for track in tracks)
    return [
        law(error, AWAY, _collision_fault(sight, side)),
        law(max(gaps), 0.05, f"{first} and {second} do not touch when their velocities change"),
        law(max(height, level), AWAY, f"{first} and {second} do not keep to one line"),
    ], speeds_found


def _collision_fault(sight: Sight, side: float) -> str:
    first, last = sight.tracks[0], sight.tracks[-1]
    gap = side * (last.x - first.x)
    if np.nanmin(gap) < 0.5 * (half_width(first) + half_width(last)):
        return f"{first} passes through {sight.tracks[1]}"
    if np.ptp(last.x[last.seen]) < 0.05:
        return f"{last} does not move when {first} comes"
    return f"{first} and {last} do not share their momentum as the law says"


def _struck(sight: Sight, speed: float) -> list[Finding]:
    """The first comes, the last goes."""
    first, last = sight.tracks[0], sight.tracks[-1]
    came = float(np.nanmax(np.abs(first.x - first.x[0]))) if first.seen[0] else 0.0
    went = abs(float(last.x[-1] - last.x[0])) if last.seen[0] and last.seen[-1] else 0.0
    return [
        motion(reaches(came, 0.03), f"{first} does not come"),
        motion(reaches(went, 0.08), f"{last} does not go"),
        motion(reaches(speed, 0.1), f"{first} does not move towards {sight.tracks[1]}"),
    ]


def _equal_masses(sight: Sight) -> Finding:
    """Mass is area here."""
    areas = [max(float(np.median(track.area[track.seen])), 1e-6) for track in sight.tracks]
    names = " and ".join(str(track) for track in sight.tracks)
    return law(float(np.log(max(areas) / min(areas))), 0.4, f"{names} are not of one size")


def _alike(sight: Sight, shares: Shares) -> list[Finding]:
    """One of equal masses is struck by another."""
    findings, speeds = _collision(sight, shares)
    return [*findings, *_struck(sight, speeds[0]), _equal_masses(sight)]


def hit_small(sight: Sight) -> list[Finding]:
    """Both go on, with the velocities that their areas demand."""
    big, small = (max(float(np.median(track.area[track.seen])), 1e-6) for track in sight.tracks)
    w1, w2 = laws.elastic(big, small, 1.0, 0.0)
    findings, speeds = _collision(sight, [[(1.0, float(w1))], [(0.0, float(w2))]])
    first, second = sight.tracks
    larger = motion(reaches(np.log(big / small), 0.4), f"{first} is not bigger than {second}")
    return [*findings, *_struck(sight, speeds[0]), larger]


def meet(sight: Sight) -> list[Finding]:
    """They come from both sides and exchange their velocities."""
    findings, speeds = _collision(sight, [[(1.0, 0.0), (0.0, 1.0)], [(0.0, 1.0), (1.0, 0.0)]])
    first, second = sight.tracks
    return [
        *findings,
        _equal_masses(sight),
        motion(reaches(speeds[0], 0.12), f"{first} does not come towards {second}"),
        motion(reaches(-speeds[1], 0.12), f"{second} does not come towards {first}"),
    ]


# At half the speed; both have it.
_TOGETHER = float(laws.inelastic(1.0, 1.0, 1.0, 0.0))

CRITERIA: Criteria = {
    # The first stops, the last takes over its velocity.
    "hit": lambda sight: _alike(sight, [[(1.0, 0.0)], [(0.0, 1.0)]]),
    "hit_small": hit_small,
    "meet": meet,
    "stick": lambda sight: _alike(sight, [[(1.0, _TOGETHER)], [(0.0, _TOGETHER)]]),
    "hit_row": lambda sight: _alike(sight, [[(1.0, 0.0)], [(0.0, 0.0)], [(0.0, 1.0)]]),
}
