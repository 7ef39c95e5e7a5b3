"""How the templates of the category "object removal" move."""

from __future__ import annotations

import numpy as np

from miniature.world import laws
from miniature.world.catalog import BOX_FLOOR, FLOOR
from miniature.world.draft import Draft, Motions


def _lift(s: Draft, x: float, y0: float, ry: float) -> tuple[laws.Array, laws.Array]:
    """Heights of subject 0 and of the palm: at rest, then up at constant speed until out of the picture."""
    start, v = s.draw(0.10, 0.22), s.draw(1.3, 1.7)
    t = s.clock(start, start + (y0 + ry) / v)
    s.span = (0.0, start + (y0 - ry) / v)  # as long as it is wholly in the picture
    y = laws.delayed(t, y0, -v, start)
    s.hand_above(x, y - ry)
    return (np.full_like(t, y0) if s.broken == "never_leaves" else y), y


def lift_from_box(s: Draft) -> None:
    """Out of an open box, up, at constant speed."""
    rx, ry = s.half(0, s.draw(0.105, 0.125))
    thick = FLOOR - BOX_FLOOR
    wall = rx + 0.02 + thick
    x = s.draw(wall + 0.05, 0.95 - wall)
    s.floor()
    s.prop("wood", x, FLOOR - thick / 2, wall, thick / 2)
    for side in (-1, 1):
        s.prop("wood", x + side * (wall - thick / 2), 0.75, thick / 2, 0.15)
    y, _ = _lift(s, x, BOX_FLOOR - ry, ry)
    s.body(0, x, y, rx, ry)


def pull_away(s: Draft) -> None:
    """Along the floor and out of the picture, at constant speed."""
    rx, ry = s.half(0, s.draw(0.11, 0.135))
    x0 = s.draw(rx + 0.05, 0.4)
    start, v = s.draw(0.10, 0.22), s.draw(1.3, 1.7)
    t = s.clock(start, start + (1.0 + rx - x0) / v)
    s.span = (0.0, start + (1.0 - rx - x0) / v)
    x = laws.delayed(t, x0, v, start)
    s.floor()
    s.hand_right(x + rx, FLOOR - ry)
    s.body(0, x0 if s.broken == "never_leaves" else x, FLOOR - ry, rx, ry)


def lift_beside(s: Draft) -> None:
    """Up at constant speed; its neighbour stays."""
    (rx, ry), (qx, qy) = s.half(0, s.draw(0.105, 0.125)), s.half(1, s.draw(0.105, 0.125))
    x, other = s.draw(0.24, 0.3), s.draw(0.7, 0.76)
    if s.chance():
        x, other = other, x
    s.floor()
    y, hand = _lift(s, x, FLOOR - ry, ry)
    s.body(0, x, y, rx, ry)
    s.body(1, other, FLOOR - qy + (hand - hand[0] if s.broken == "takes_both" else 0.0), qx, qy)


def lower_into_box(s: Draft) -> None:
    """Down at constant speed until the box hides it."""
    rx, ry = s.half(0, s.draw(0.105, 0.12))
    wall, top = rx + 0.05, s.draw(0.53, 0.56)
    x = s.draw(wall + 0.05, 0.95 - wall)
    y0, v, start = ry + s.draw(0.09, 0.14), s.draw(0.68, 0.85), s.draw(0.06, 0.16)
    t = s.clock(start, start + (top - y0) / v)
    s.span = (0.0, start + (top - y0 - ry) / v)
    y = np.minimum(laws.delayed(t, y0, v, start), FLOOR - 0.02 - ry)
    s.floor()
    s.hand_above(x, y - ry)
    body_first = s.broken != "passes_through"  # else it sinks in front of the box: through its wall
    if not body_first:
        s.prop("wood", x, (top + FLOOR) / 2, wall, (FLOOR - top) / 2)
    s.body(0, x, y0 if s.broken == "never_leaves" else y, rx, ry)
    if body_first:
        s.prop("wood", x, (top + FLOOR) / 2, wall, (FLOOR - top) / 2)


def lift_off(s: Draft) -> None:
    """Up at constant speed; what it lay on stays."""
    (rx, ry), (qx, qy) = s.half(0, s.draw(0.10, 0.12)), s.half(1, s.draw(0.115, 0.135))
    x = s.draw(0.25, 0.75)
    s.floor()
    y, hand = _lift(s, x, FLOOR - 2 * qy - ry, ry)
    s.body(0, x, y, rx, ry)
    s.body(1, x, FLOOR - qy + (hand - hand[0] if s.broken == "takes_both" else 0.0), qx, qy)


MOTIONS: Motions = {
    "lift_from_box": lift_from_box,
    "pull_away": pull_away,
    "lift_beside": lift_beside,
    "lower_into_box": lower_into_box,
    "lift_off": lift_off,
}
