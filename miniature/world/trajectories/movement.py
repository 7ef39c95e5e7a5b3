"""How the templates of the category "directional movement" move."""

from __future__ import annotations

from miniature.world import laws
from miniature.world.catalog import FLOOR
from miniature.world.draft import Draft, Motions

ROOM = 0.02  # between a subject and the border of the stage


def _sweep(s: Draft, half: float) -> laws.Array:
    """From one side to the other at constant speed."""
    x0, t = half + s.draw(0.02, 0.08), s.clock(0.0, 1.0)
    return laws.uniform(t, x0, s.draw(0.88, 1.0) * (1 - half - ROOM - x0))


def _across(s: Draft, to_right: bool) -> None:
    rx, ry = s.half(0, s.draw(0.11, 0.14))
    x = _sweep(s, rx)
    s.body(0, x if to_right == (s.broken != "wrong_way") else 1 - x, s.draw(0.25, 0.75), rx, ry)


def move_up(s: Draft) -> None:
    """Constant velocity upward."""
    rx, ry = s.half(0, s.draw(0.11, 0.14))
    y = _sweep(s, ry)
    s.body(0, s.draw(0.22, 0.78), y if s.broken == "wrong_way" else 1 - y, rx, ry)


def slide(s: Draft) -> None:
    """Friction: constant deceleration to rest."""
    rx, ry = s.half(0, s.draw(0.11, 0.135))
    x0, stop, t = rx + s.draw(0.02, 0.06), s.draw(0.62, 0.78), s.clock(0.0, 0.6)
    distance = s.draw(0.86, 1.0) * (1 - rx - ROOM - x0)
    x = laws.uniform(t, x0, distance) if s.broken == "never_stops" else laws.friction(t, x0, distance, stop)
    s.floor()
    s.body(0, 1 - x if s.broken == "wrong_way" else x, FLOOR - ry, rx, ry)


def move_diagonal(s: Draft) -> None:
    """Constant velocity upward and to the right."""
    rx, ry = s.half(0, s.draw(0.11, 0.135))
    t = s.clock(0.0, 1.0)
    x0, y0 = rx + s.draw(0.02, 0.08), 1 - ry - s.draw(0.02, 0.08)
    x = laws.uniform(t, x0, s.draw(0.85, 1.0) * (1 - rx - ROOM - x0))
    y = laws.uniform(t, y0, s.draw(0.85, 1.0) * (ry + ROOM - y0))
    wrong = s.broken == "wrong_way"
    s.body(0, 1 - x if wrong else x, 1 - y if wrong else y, rx, ry)


MOTIONS: Motions = {
    "move_left": lambda s: _across(s, to_right=False),
    "move_right": lambda s: _across(s, to_right=True),
    "move_up": move_up,
    "slide": slide,
    "move_diagonal": move_diagonal,
}
