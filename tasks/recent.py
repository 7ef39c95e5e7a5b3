"""Results of a function that take a while, remembered for the last few arguments."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class Recent(Generic[Value]):
    """Remembers a few results. Arguments need not be hashable, and nothing that was given may change."""

    def __init__(self, kept: int) -> None:
        self._held: deque[tuple[object, tuple[Any, ...], Value]] = deque(maxlen=kept)

    def get(self, of: object, more: tuple[Any, ...], make: Callable[[], Value]) -> Value:
        """The result for the very object `of`, however large, and `more`; else what `make` makes."""
        for same, equal, value in tuple(self._held):
            if same is of and equal == more:
                return value
        value = make()
        self._held.append((of, more, value))
        return value
