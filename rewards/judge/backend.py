"""What the judge asks of a backend: questions about frames in, one reply each out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rewards.judge.answers import Probability
from rewards.judge.frames import Segment


@dataclass(frozen=True, eq=False)
class Ask:
    """One question about one segment of one clip."""

    segment: Segment
    text: str


@dataclass(frozen=True)
class Reply:
    """What came of it: a probability, or None and why not.

    Attributes:
        error: None exactly when there is a probability.
        again: without a probability: whether asking again may help.
        detail: facts worth keeping with the answer (number of prompt tokens); plain JSON.
    """

    probability: Probability | None
    error: str | None = None
    again: bool = False
    detail: dict[str, Any] = field(default_factory=dict)


class Backend(Protocol):
    """A model that answers. Safe to call from several threads."""

    def ask(self, asks: Sequence[Ask]) -> list[Reply]:
        """One reply for each question, in order; questions about one segment should stand together.

        Raises:
            ServiceError: the model, the server or its environment is not what the settings promise.
        """
        ...

    def prepare(self) -> None:
        """Begin what takes long before the first question, and do not wait for it; may do nothing.

        Raises:
            ServiceError: it cannot begin.
        """
        ...

    @property
    def identity(self) -> dict[str, str]:
        """Who answers: backend, library and its version, model. Kept with each answer."""
        ...

    @property
    def down(self) -> str | None:
        """Why nobody is answered any more, or None."""
        ...

    def close(self) -> None:
        """Let go of memory and processes; may be called twice."""
        ...
