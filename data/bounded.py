"""A mapping that forgets: what a process remembers must not grow with the time that it runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Bounded(Generic[Key, Value]):
    """What was used longest ago goes once all together weigh more than `most`; the newest stays, whatever
    it weighs. Any thread may use it.

    Args:
        most: the bound.
        weigh: what an entry counts; each 1 unless told otherwise.
    """

    def __init__(self, most: int, weigh: Callable[[Value], int] = lambda _: 1) -> None:
        self._most, self._weigh = most, weigh
        self._held: dict[Key, Value] = {}  # in the order of use
        self._weight = 0
        self._lock = threading.Lock()

    def get(self, key: Key) -> Value | None:
        """What is remembered of `key`; None if nothing is."""
        with self._lock:
            if key not in self._held:
                return None
            value = self._held[key] = self._held.pop(key)
            return value

    def put(self, key: Key, value: Value) -> Value:
        """Remember a value, which is returned."""
        self.pop(key)
        with self._lock:
            self._held[key] = value
            self._weight += self._weigh(value)
            while self._weight > self._most and len(self._held) > 1:
                self._weight -= self._weigh(self._held.pop(next(iter(self._held))))
        return value

    def pop(self, key: Key) -> None:
        """Forget `key`, if it is remembered."""
        with self._lock:
            if key in self._held:
                self._weight -= self._weigh(self._held.pop(key))

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._held.clear()
            self._weight = 0

    def __len__(self) -> int:
        return len(self._held)
