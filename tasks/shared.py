"""What the units of a stage share: pickled, a unit holds its digest, and each process is given it once.

A stage of 8,000 prompts whose every unit carried them would send them as often as it has units.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from typing import Any, Final, Generic, TypeVar
from weakref import WeakValueDictionary

from data.keys import digest

Value = TypeVar("Value")

_here: Final[WeakValueDictionary[str, Shared[Any]]] = WeakValueDictionary()
_given: Final[dict[str, Shared[Any]]] = {}
_pickling = threading.local()


class Shared(Generic[Value]):
    """A value of which there is one in a process, whatever the number of units that hold it.

    Attributes:
        value: exact JSON, as `data.keys.digest` takes it.
        digest: its digest; two that are equal are the same.
    """

    def __init__(self, value: Value) -> None:
        self.value, self.digest = value, digest(value)
        _here.setdefault(self.digest, self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Shared) and other.digest == self.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        getattr(_pickling, "met", {})[self.digest] = self
        return _taken, (self.digest,)


@dataclass(frozen=True)
class Gift:
    """A job that leaves a shared value in the process where it is run."""

    value: Any

    def run(self) -> None:
        """Keep the value as long as the process lives."""
        shared = Shared(self.value)
        _given[shared.digest] = shared


def pickled(job: object) -> tuple[bytes, list[Shared[Any]]]:
    """A job as it goes through a pipe, and what must be there already where it is unpickled."""
    met: dict[str, Shared[Any]] = {}
    _pickling.met = met
    try:
        return bytes(ForkingPickler.dumps(job)), list(met.values())
    finally:
        del _pickling.met


def _taken(digest: str) -> Shared[Any]:
    return _here[digest]
