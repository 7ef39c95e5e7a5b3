"""A scene while a motion puts it together: random numbers, the clock, and the layers so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from miniature.world import laws
from miniature.world.catalog import COLOURS, FLOOR, PROPS, SHAPES, Subject

PALETTE = (*COLOURS, *PROPS)  # a layer's colour is an index into it
COLOUR_INDEX = {name: index for index, name in enumerate(PALETTE)}
SHAPE_INDEX = {name: index for index, name in enumerate(SHAPES)}
_CLOCKED = {"stops_midway": (0.3, 0.5), "turns_back": (0.5, 0.7), "floats": (0.45, 0.75)}

Layer = tuple[laws.Value, laws.Value, laws.Value, laws.Value, int, int]


@dataclass
class Draft:
    """A scene being put together by a motion: random numbers, the clock, and the layers so far."""

    subjects: Sequence[Subject]
    rng: np.random.Generator
    broken: str | None
    t: laws.Array
    layers: list[Layer] = field(default_factory=list)
    rows: dict[int, int] = field(default_factory=dict)  # subject -> layer
    span: tuple[float, float] = (0.0, 1.0)  # when a change of subject 0 would be seen

    def draw(self, low: float, high: float) -> float:
        """Uniform in [low, high)."""
        return low + (high - low) * float(self.rng.random())

    def chance(self) -> bool:
        return bool(self.rng.random() < 0.5)

    def half(self, subject: int, r: float) -> tuple[float, float]:
        """Half extents of a subject whose area is that of a ball of radius r."""
        extent = r * laws.HALF_EXTENT[self.subjects[subject].shape]
        return extent, extent

    def clock(self, start: float, end: float) -> laws.Array:
        """Time [T] for a motion from `start` to `end`: it may stop midway, or run backward from there."""
        end = min(end, 1.0)
        self.span = (start, end)
        if self.broken not in _CLOCKED:
            return self.t
        turn = start + self.draw(*_CLOCKED[self.broken]) * (end - start)
        if self.broken == "turns_back":
            return np.asarray(np.maximum(turn - np.abs(self.t - turn), 0.0))
        return np.minimum(self.t, turn)

    def prop(self, name: str, x: laws.Value, y: laws.Value, rx: laws.Value, ry: laws.Value) -> None:
        self.layers.append((x, y, rx, ry, COLOUR_INDEX[name], SHAPE_INDEX["square"]))

    def floor(self) -> None:
        """The floor, from its surface down."""
        self.prop("floor", 0.5, FLOOR + 0.25, 0.5, 0.25)

    def hand_above(self, x: laws.Value, tip: laws.Value, palm: float = 0.09) -> None:
        """An arm from above whose palm ends at y = tip."""
        self.prop("hand", x, tip - 0.03, palm, 0.03)
        self.prop("hand", x, tip - 1.03, 0.045, 1.0)

    def hand_right(self, tip: laws.Value, y: laws.Value) -> None:
        """An arm from the right whose palm ends at x = tip."""
        self.prop("hand", tip + 0.03, y, 0.03, 0.09)
        self.prop("hand", tip + 1.03, y, 1.0, 0.045)

    def body(self, subject: int, x: laws.Value, y: laws.Value, rx: laws.Value, ry: laws.Value) -> None:
        self.rows[subject] = len(self.layers)
        look = self.subjects[subject]
        self.layers.append((x, y, rx, ry, COLOUR_INDEX[look.colour], SHAPE_INDEX[look.shape]))


Motions = dict[str, Callable[[Draft], None]]
"""Templates and how each puts a scene together."""
