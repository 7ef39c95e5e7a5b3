"""A target: one parser behind its public door, what it may refuse with, and real inputs to start from."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from data.errors import VidloopError

SEPARATOR = b"\n---\n"
_numbers = itertools.count()


@dataclass(frozen=True)
class Target:
    """A parser as the fuzzer sees it.

    Attributes:
        name: of its folder of the corpora.
        read: gives the parser an input. What it raises beside `refusals` is a finding.
        seeds: inputs of the kind that the program itself writes, or people do.
        refusals: what the parser's docstring says that it raises.
        words: of its language, put in by the fuzzer here and there.
        most: bytes that an input has at most.
        trees: inputs are JSON or YAML, several with `SEPARATOR` between them.
        least: of a run that counts, so many inputs at least.
        share: of the inputs above `least`, in proportion to the other targets'.
    """

    name: str
    read: Callable[[bytes], object]
    seeds: Callable[[], Iterable[bytes]]
    refusals: tuple[type[BaseException], ...] = (VidloopError,)
    words: tuple[str, ...] = ()
    most: int = 4096
    trees: bool = False
    least: int = 5_000
    share: int = 1


@cache
def folder() -> Path:
    """A folder of this process, for parsers that read files. Whoever starts a process of many sets TMPDIR."""
    return Path(tempfile.mkdtemp(prefix="vidloop-fuzz-"))


@contextmanager
def file_of(data: bytes, name: str) -> Iterator[Path]:
    """A file with this content, under a name of its own: some readers remember files by name and time."""
    path = folder() / f"{next(_numbers)}-{name}"
    path.write_bytes(data)
    try:
        yield path
    finally:
        path.unlink()
