"""Work of independent items on all cores: codecs and image libraries release Python's lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


def in_threads(work: Callable[[Item], Made], items: Sequence[Item]) -> list[Made]:
    """`work` of every item, in their order. The first error is raised, after what runs has ended."""
    count = min(len(items), cores())
    if count <= 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(count, thread_name_prefix="items") as pool:
        return list(pool.map(work, items))
