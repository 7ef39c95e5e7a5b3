"""Props that several categories use: the floor and the hand."""

from __future__ import annotations

from miniature.world import laws
from miniature.world.catalog import FLOOR
from miniature.world.draft import Draft


def floor(s: Draft) -> None:
    """The floor, from its surface down."""
    s.prop("floor", 0.5, FLOOR + 0.25, 0.5, 0.25)


def hand_above(s: Draft, x: laws.Value, tip: laws.Value, palm: float = 0.09) -> None:
    """An arm from above whose palm ends at y = tip."""
    s.prop("hand", x, tip - 0.03, palm, 0.03)
    s.prop("hand", x, tip - 1.03, 0.045, 1.0)


def hand_right(s: Draft, tip: laws.Value, y: laws.Value) -> None:
    """An arm from the right whose palm ends at x = tip."""
    s.prop("hand", tip + 0.03, y, 0.03, 0.09)
    s.prop("hand", tip + 1.03, y, 1.0, 0.045)
