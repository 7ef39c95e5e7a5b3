"""How the templates of the category "deformable objects" move."""

from __future__ import annotations

import numpy as np

from miniature.world import laws
from miniature.world.catalog import FLOOR
from miniature.world.draft import Draft, Motions


def _strained(s: Draft, rx: float, ry: float, strain: laws.Value) -> tuple[laws.Value, laws.Value]:
    """Half extents under the strain; the area is kept unless that is the law to break."""
    wide, high = laws.deform(rx, ry, strain)
    return (rx if s.broken == "changes_area" else wide), high


def _bend(s: Draft, amplitude: float) -> None:
    rx, ry = s.half(0, s.draw(0.11, 0.125))
    x = s.draw(0.38, 0.62)
    t = s.clock(0.0, 1.0)
    if s.broken == "never_relaxes":
        t = np.minimum(t, 0.5)
    wide, high = _strained(s, rx, ry, laws.pulse(t, 0.0 if s.broken == "stays_rigid" else amplitude))
    s.floor()
    s.body(0, x, FLOOR - high, wide, high)


def press(s: Draft) -> None:
    """Flattened by a plate for good, area kept."""
    rx, ry = s.half(0, s.draw(0.105, 0.12))
    x, flat = s.draw(0.40, 0.60), ry * s.draw(0.48, 0.58)
    high, low, release = s.draw(0.12, 0.20), FLOOR - 2 * flat, s.draw(0.56, 0.68)
    speed = (low - high) / release
    contact = (FLOOR - 2 * ry - high) / speed
    t = s.clock(0.0, 1.0)
    tip = low - speed * np.abs(t - release)
    half_y = laws.press(t, ry, flat, contact, release)
    if s.broken == "passes_through":
        half_y = np.full_like(t, ry)
    elif s.broken == "springs_back":
        half_y = np.clip((FLOOR - tip) / 2, flat, ry)
    wide, high_y = _strained(s, rx, ry, np.log(ry / half_y))
    s.floor()
    s.body(0, x, FLOOR - high_y, wide, high_y)
    s.hand_above(x, tip, palm=0.2)


def splat(s: Draft) -> None:
    """Free fall, then flattened by its own impact for good, area kept."""
    rx, ry = s.half(0, s.draw(0.105, 0.12))
    x, y0, g = s.draw(0.38, 0.62), ry + s.draw(0.03, 0.12), s.draw(3.6, 4.6)
    amplitude, tau = s.draw(0.36, 0.50), s.draw(0.05, 0.10)
    impact = float(laws.fall_time(FLOOR - ry - y0, g))
    t = s.clock(0.0, impact)
    bottom = laws.land(t, y0 + ry, g, FLOOR)
    strain = laws.splat(t, 0.0 if s.broken in ("stays_rigid", "passes_through") else amplitude, impact, tau)
    if s.broken == "passes_through":
        bottom = laws.free_fall(t, y0 + ry, g)
    wide, high = _strained(s, rx, ry, strain)
    s.floor()
    s.body(0, x, bottom - high, wide, high)


def wobble(s: Draft) -> None:
    """A damped oscillation, area kept."""
    rx, ry = s.half(0, s.draw(0.11, 0.125))
    x, amplitude = s.draw(0.38, 0.62), s.draw(0.55, 0.68)
    damping, frequency = s.draw(1.6, 2.2), s.draw(1.9, 2.1)
    t = s.clock(0.0, 1.0)
    if s.broken == "never_relaxes":
        damping, amplitude = 0.0, 0.45
    elif s.broken == "stays_rigid":
        amplitude = 0.0
    wide, high = _strained(s, rx, ry, laws.wobble(t, amplitude, damping, frequency))
    s.floor()
    s.body(0, x, FLOOR - high, wide, high)


MOTIONS: Motions = {
    "squeeze": lambda s: _bend(s, s.draw(0.45, 0.60)),  # flat and back, area kept
    "stretch": lambda s: _bend(s, -s.draw(0.40, 0.54)),  # tall and back, area kept
    "press": press,
    "splat": splat,
    "wobble": wobble,
}
