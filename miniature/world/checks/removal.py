"""What the captions of the category "object removal" promise."""

from __future__ import annotations

import numpy as np

from miniature.world import laws
from miniature.world.catalog import BOX_FLOOR, FLOOR
from miniature.world.checks.finding import AWAY, Criteria, Finding, blame, law, motion
from miniature.world.curve_fit import best_trial, reaches, solve, spread
from miniature.world.tracking import Floats, Sight, Track


def _leaves(sight: Sight, track: Track, edge: Floats, sign: float, exit_at: float) -> list[Finding]:
    """At rest, then constant speed until the last edge of the subject has passed `exit_at`."""
    seen, t = track.seen, sight.t
    frames = np.nonzero(seen)[0]
    start = np.arange(0.0, 0.6, 0.0125)[:, None]
    basis = np.stack([np.ones((len(start), len(frames))), laws.delayed(t[frames], 0.0, 1.0, start)], axis=2)
    coefficients, residuals = solve(basis, edge[frames])
    best, error = best_trial(residuals)
    origin, speed = coefficients[best]
    travelled = sign * (edge[frames[-1]] - edge[frames[0]])
    vanished = f"{track} vanished after frame {frames[-1]} without leaving"
    findings = [
        motion(reaches(travelled, 0.15), blame(track, edge, sign, "hardly moves") if seen[-1] else vanished),
        motion(1.0 - seen[-1], blame(track, edge, sign, "is still there in the last frame")),
    ]
    # It may only disappear where it leaves: the fitted line says how far it had to go in the next frame.
    then = t[frames[-1]] + 1.0 / (len(t) - 1)
    to_go = sign * (exit_at - origin - speed * max(then - start[best, 0], 0.0))
    findings.append(law(max(to_go, 0.0), 0.11, vanished))
    findings.append(law(error, AWAY, f"{track} does not leave at constant speed"))
    return findings


def _held(track: Track, hand: Floats, side: Floats) -> Finding:
    """The hand touches that side of the subject for as long as both are well in the picture."""
    both = np.isfinite(hand) & np.isfinite(side) & (side > 0.06) & (side < 0.94)
    gap = float(np.median(np.abs(hand[both] - side[both]))) if both.sum() >= 2 else 1.0
    return law(gap, 0.07, f"no hand holds {track}")


def _upright(track: Track) -> Finding:
    return law(spread(track.x, track.whole), AWAY, f"{track} drifts sideways")


def _lifted(sight: Sight, rest: float) -> list[Finding]:
    track = sight.tracks[0]
    begins = float(np.median(track.bottom[:2]))
    return [
        *_leaves(sight, track, track.bottom, -1.0, 0.0),
        _held(track, sight.hand.bottom, track.top),
        _upright(track),
        law(abs(begins - rest), 0.06, f"{track} is not where it should be at first"),
    ]


def _stays(track: Track) -> list[Finding]:
    moved = max(spread(track.x, track.seen), spread(track.y, track.seen))
    return [law(moved, AWAY, f"{track} does not stay where it is")]


def pull_away(sight: Sight) -> list[Finding]:
    """Along the floor, in the hand, out of the picture to the right."""
    track = sight.tracks[0]
    return [
        *_leaves(sight, track, track.left, 1.0, 1.0),
        _held(track, sight.hand.left, track.right),
        law(spread(track.y, track.whole), AWAY, f"{track} leaves the floor"),
    ]


def lift_beside(sight: Sight) -> list[Finding]:
    """Up and out of the picture, while its neighbour stays."""
    track, other = sight.tracks
    apart = abs(float(np.median(track.x[:2]) - np.median(other.x[:2])))
    beside = motion(reaches(apart, 0.15), f"{track} is not beside {other}")
    return [*_lifted(sight, FLOOR), *_stays(other), beside]


def lower_into_box(sight: Sight) -> list[Finding]:
    """Down, in the hand, until the box hides it."""
    track = sight.tracks[0]
    return [
        *_leaves(sight, track, track.top, 1.0, sight.wood.top),
        _held(track, sight.hand.bottom, track.top),
        _upright(track),
    ]


def lift_off(sight: Sight) -> list[Finding]:
    """From the top of the other, up and out of the picture, while the other stays."""
    track, other = sight.tracks
    rest = float(np.median(other.top))
    above = abs(float(np.median(track.x[:2]) - np.median(other.x[:2])))
    on_top = law(above, 0.07, f"{track} does not lie on {other}")
    return [*_lifted(sight, rest), *_stays(other), on_top]


CRITERIA: Criteria = {
    # From the floor of the box, in the hand, up and out of the picture.
    "lift_from_box": lambda sight: _lifted(sight, BOX_FLOOR),
    "pull_away": pull_away,
    "lift_beside": lift_beside,
    "lower_into_box": lower_into_box,
    "lift_off": lift_off,
}
