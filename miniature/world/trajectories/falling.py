"""How the templates of the category "falling down" move: free fall, and what the floor does to it."""

from __future__ import annotations

import numpy as np

from miniature.world import laws
from miniature.world.catalog import FLOOR, TABLE
from miniature.world.draft import Draft, Motions


def _fall(s: Draft, restitution: float) -> None:
    rx, ry = s.half(0, s.draw(0.11, 0.135))
    x, y0, g = s.draw(rx + 0.06, 0.94 - rx), ry + s.draw(0.03, 0.12), s.draw(3.2, 4.4)
    rest = FLOOR - ry
    t = s.clock(0.0, float(laws.fall_time(rest - y0, g)))
    if s.broken == "falls_up":
        y = laws.free_fall(t, s.draw(0.55, 0.68), -g)
    elif s.broken == "passes_through":
        y = laws.free_fall(t, y0, g)
    else:
        y = laws.bounce(t, y0, g, rest, s.draw(1.15, 1.3) if s.broken == "gains_energy" else restitution)
    s.floor()
    s.body(0, x, y, rx, ry)


def off_table(s: Draft) -> None:
    """Carried by the table until it has wholly passed the edge (no tipping), then thrown horizontally."""
    rx, ry = s.half(0, s.draw(0.10, 0.125))
    x0, edge = rx + s.draw(0.02, 0.06), s.draw(0.28, 0.34)
    v, g = s.draw(0.58, 0.70), s.draw(4.0, 5.2)
    leaves = (edge + rx - x0) / v
    t = s.clock(0.0, leaves)
    falls = leaves
    if s.broken == "passes_through":  # sinks into the table
        falls = leaves * s.draw(0.15, 0.35)
    fall = np.maximum(t - falls, 0.0)
    if s.broken == "floats":
        fall = np.zeros_like(t)
    gravity = -g if s.broken == "falls_up" else g
    y = laws.land(fall, TABLE - ry, gravity, FLOOR - ry)
    landed = leaves + float(laws.fall_time(FLOOR - TABLE, g))
    x = laws.uniform(np.minimum(t, landed), x0, v)
    s.floor()
    s.prop("wood", edge / 2, TABLE + 0.025, edge / 2, 0.025)
    s.prop("wood", 0.09, (TABLE + FLOOR) / 2, 0.03, (FLOOR - TABLE) / 2)
    s.body(0, x, y, rx, ry)


def fall_together(s: Draft) -> None:
    """Free fall of two sizes from one height: they land together."""
    sizes = [s.half(i, s.draw(0.09, 0.13)) for i in range(2)]
    places = [s.draw(0.22, 0.31), s.draw(0.69, 0.78)]
    if s.chance():
        places.reverse()
    bottom, g = s.draw(0.36, 0.42), s.draw(3.2, 4.4)
    t = s.clock(0.0, float(laws.fall_time(FLOOR - bottom, g)))
    s.floor()
    for i, ((rx, ry), x) in enumerate(zip(sizes, places, strict=True)):
        # Galileo's law: the same g for both, whatever their size.
        slow = 0.3 if i == 1 and s.broken == "falls_slowly" else 1.0
        if s.broken == "passes_through":
            y = laws.free_fall(t, bottom - ry, g)
        else:
            y = laws.land(t, bottom - ry, g * slow, FLOOR - ry)
        s.body(i, x, y, rx, ry)


def toss(s: Draft) -> None:
    """Thrown upward: the parabola of free fall, back to the floor."""
    rx, ry = s.half(0, s.draw(0.11, 0.135))
    x, rest = s.draw(rx + 0.06, 0.94 - rx), FLOOR - ry
    flight, height = s.draw(0.84, 0.96), min(s.draw(0.42, 0.54), rest - ry - 0.02)
    g = 8 * height / flight**2
    t = s.clock(0.0, flight)
    if s.broken == "floats":  # stays where it has risen to
        t = np.minimum(t, flight / 2)
    s.floor()
    s.body(0, x, laws.toss(t, rest, g * flight / 2, g), rx, ry)


MOTIONS: Motions = {
    "bounce": lambda s: _fall(s, s.draw(0.58, 0.75)),  # rebounds with a restitution below one
    "drop": lambda s: _fall(s, 0.0),  # rests
    "off_table": off_table,
    "fall_together": fall_together,
    "toss": toss,
}
