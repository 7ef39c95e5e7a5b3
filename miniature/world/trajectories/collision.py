"""How the templates of the category "multiple objects" move."""

from __future__ import annotations

from miniature.world import laws
from miniature.world.draft import Draft, Motions


def _strike(
    s: Draft, r1: float, r2: float, xa: float, xb: float, v: float, after: tuple[float, float]
) -> None:
    """Subject 0 comes from the left with speed v and meets subject 1, at rest; `after`: their velocities."""
    (rx, ry), (qx, qy) = s.half(0, r1), s.half(1, r2)
    y = s.draw(0.28, 0.72)
    contact = (xb - xa - rx - qx) / v
    t = s.clock(0.0, contact * 1.2)
    w1, w2 = after
    start = contact
    if s.broken == "loses_momentum":
        w1 = w2 = 0.0
    elif s.broken == "passes_through":
        w1, w2 = v, 0.0
    elif s.broken == "acts_at_distance":  # the second leaves although nothing has touched it
        start = contact - 0.13 / v
    s.body(0, laws.collide(t, xa, v, w1, start), y, rx, ry)
    s.body(1, laws.collide(t, xb, 0.0, w2, start), y, qx, qy)


def hit(s: Draft) -> None:
    """Elastic, equal masses: the velocity passes from one to the other."""
    r = s.draw(0.095, 0.115)
    v = s.draw(0.80, 1.0) * (0.93 - 4 * r)
    _strike(s, r, r, r + s.draw(0.02, 0.05), s.draw(0.50, 0.55), v, (0.0, v))


def hit_small(s: Draft) -> None:
    """Elastic, masses as the areas: both go on, the small one faster."""
    r1, r2, v = s.draw(0.13, 0.15), s.draw(0.08, 0.09), s.draw(0.28, 0.34)
    w1, w2 = laws.elastic(r1 * r1, r2 * r2, v, 0.0)
    _strike(s, r1, r2, r1 + s.draw(0.02, 0.05), s.draw(0.50, 0.54), v, (float(w1), float(w2)))


def meet(s: Draft) -> None:
    """Elastic, equal masses: the velocities are exchanged."""
    r = s.draw(0.095, 0.115)
    (rx, ry), (qx, qy) = s.half(0, r), s.half(1, r)
    xa, xb = r + s.draw(0.02, 0.06), 1 - r - s.draw(0.02, 0.06)
    u, w, y = s.draw(0.42, 0.50), -s.draw(0.42, 0.50), s.draw(0.28, 0.72)
    contact = (xb - xa - rx - qx) / (u - w)
    t = s.clock(0.0, contact)
    u2, w2, start = w, u, contact  # equal masses exchange their velocities
    if s.broken == "loses_momentum":
        u2 = w2 = 0.0
    elif s.broken == "passes_through":
        u2, w2 = u, w
    elif s.broken == "acts_at_distance":
        start = contact - 0.16 / (u - w)
    a, b = laws.collide(t, xa, u, u2, start), laws.collide(t, xb, w, w2, start)
    if s.chance():  # the caption names no side
        a, b = 1 - a, 1 - b
    s.body(0, a, y, rx, ry)
    s.body(1, b, y, qx, qy)


def stick(s: Draft) -> None:
    """Perfectly inelastic, equal masses: both go on at half the speed."""
    r, v = s.draw(0.095, 0.115), s.draw(0.60, 0.74)
    w = float(laws.inelastic(1.0, 1.0, v, 0.0))
    _strike(s, r, r, r + s.draw(0.02, 0.05), s.draw(0.50, 0.55), v, (w, w))


def hit_row(s: Draft) -> None:
    """Elastic, equal masses in a row: the last takes the velocity of the first."""
    r = s.draw(0.08, 0.09)
    halves = [s.half(i, r) for i in range(3)]
    xa, xb, v, y = r + s.draw(0.02, 0.05), s.draw(0.44, 0.48), s.draw(0.32, 0.38), s.draw(0.28, 0.72)
    xc = xb + halves[1][0] + halves[2][0]
    contact = (xb - xa - halves[0][0] - halves[1][0]) / v
    t = s.clock(0.0, contact * 1.2)
    w1, w3, start = 0.0, v, contact
    if s.broken == "loses_momentum":
        w3 = 0.0
    elif s.broken == "passes_through":
        w1, w3 = v, 0.0
    elif s.broken == "acts_at_distance":
        start = contact - 0.13 / v
    s.body(0, laws.collide(t, xa, v, w1, start), y, *halves[0])
    s.body(1, xb, y, *halves[1])
    s.body(2, laws.collide(t, xc, 0.0, w3, start), y, *halves[2])


MOTIONS: Motions = {"hit": hit, "hit_small": hit_small, "meet": meet, "stick": stick, "hit_row": hit_row}
