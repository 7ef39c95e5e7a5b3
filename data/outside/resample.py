"""Pictures at a steady rate, chosen by time stamps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Picture = TypeVar("Picture")


@dataclass(frozen=True)
class Shown(Generic[Picture]):
    """A picture of a file.

    Attributes:
        time: from which it is shown, in seconds; `lasts`: how long, where none follows.
        picture: what is shown.
    """

    time: float
    lasts: float
    picture: Picture


def at_rate(
    shown: Iterable[Shown[Picture]], fps: float, rate: float, count: int
) -> Iterator[tuple[Picture, bool]]:
    """What is shown at 0, 1/fps, 2/fps, ... after the first picture, and whether it is the one before again.

    A picture counts as shown from half a frame early, so that time stamps which a format has rounded choose
    the pictures that exact ones would.

    Args:
        shown: pictures in the order of their times; one that goes back in time is left out.
        fps: of what is made.
        rate: mean rate of `shown`.
        count: at most so many.
    """
    early = 0.5 / max(fps, rate)
    made = 0
    begin = 0.0
    held: Shown[Picture] | None = None
    again = False
    for one in shown:
        if held is None:
            begin = one.time
        elif one.time <= held.time:
            continue
        while held is not None and made / fps + early < one.time - begin:
            yield held.picture, again
            again, made = True, made + 1
            if made >= count:
                return
        held, again = one, False
    while held is not None and made < count and made / fps + early < held.time + held.lasts - begin:
        yield held.picture, again
        again, made = True, made + 1
