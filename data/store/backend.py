"""Where a store's files lie: one interface for a folder and for object storage.

A path is relative to the store: plain names joined by "/". The store above says what files mean; a backend
keeps their bytes, and gives four promises that all else rests on:

- `create` lets exactly one of several writers win, and `put` replaces in one step: nobody reads half a file;
- what either of them has written is there after a power cut;
- `swap` replaces only what was read before, so that of two changes of a document none is lost;
- `lock` keeps other processes out, and a process that dies lets go.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from data.errors import StoreError

_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._+:-]{0,199}"
_PLAIN: Final = re.compile(f"{_NAME}(?:/{_NAME})*")


@dataclass(frozen=True, slots=True)
class Entry:
    """A file that a backend holds.

    Attributes:
        path: relative to the store.
        bytes: its size.
        time: when it was last written, or used again; seconds since 1970 by the backend's clock.
    """

    path: str
    bytes: int
    time: float


@dataclass(frozen=True, slots=True)
class Trial:
    """One thing that was tried of what a store needs.

    Attributes:
        what: it is, and where.
        fault: why it does not work, and what to do; "": it works, or a store does without.
        needed: whether nothing can be written to a store that lacks it.
    """

    what: str
    fault: str = ""
    needed: bool = True


class Backend(Protocol):
    """The files of one store.

    Reading raises FileNotFoundError where nothing is, PermissionError where this user may not, and another
    OSError where the bytes cannot be had; everything else raises StoreError in words. A StoreError of a
    reading verb says nothing about the file: the place could not be asked.
    """

    @property
    def url(self) -> str:
        """The store's name: what `--store` opens it by."""

    @property
    def rots(self) -> bool:
        """Whether bytes at rest may change, so that a file of the right size is not yet the right file."""

    @property
    def workspace(self) -> Path:
        """A folder of this machine for what is no part of the store: checkpoints of work, logs of servers."""

    def where(self, path: str = "") -> str:
        """A file's (or the store's) name for people: an absolute path, a URL."""

    def local(self, path: str) -> Path:
        """A file of this machine with the bytes of `path`, to be read only. Raises as `read`."""

    # -- reading -------------------------------------------------------------------------------------------

    def read(self, path: str) -> bytes:
        """The bytes of a file."""

    def size(self, path: str) -> int:
        """The size of a file, without reading it."""

    def sizes(self, paths: Sequence[str]) -> dict[str, int]:
        """Sizes of those of many files that are there, for who asks for all of them: in few requests.

        One that is missing here may be there all the same: `size` says why it has none.
        """

    def sha256(self, path: str) -> str:
        """Hexadecimal SHA-256 of a file, read piece by piece."""

    def taken(self, path: str) -> bool:
        """Whether anything lies at `path`, be it a file or not."""

    def is_link(self, path: str) -> bool:
        """Whether a file is a link to another one, which may lie outside of the store."""

    def is_plain(self, path: str) -> bool:
        """Whether what `find` found is a file of the store's own that this user may read."""

    def modified(self, path: str) -> float:
        """When a file was written last, in seconds since 1970 by the backend's clock."""

    def names(self, folder: str) -> list[str]:
        """Names of what lies directly in `folder` ("": the store), in no order; none if it is not there."""

    def find(self, pattern: str) -> list[str]:
        """Paths that match a pattern, sorted: "*" stands for any part of one name."""

    # -- writing -------------------------------------------------------------------------------------------

    def create(self, path: str, data: bytes) -> bool:
        """Write a file unless there is one: of several writers exactly one wins. Whether it was us."""

    def put(self, path: str, data: bytes) -> None:
        """Write or replace a file in one step."""

    def token(self, path: str) -> str | None:
        """What names the present content of a document for `swap`; None if there is none."""

    def swap(self, path: str, data: bytes, token: str | None) -> bool:
        """Replace a document whose content is still that of `token`; whether it was. Hold its lock."""

    def append(self, path: str, line: str) -> None:
        """Add a line to a log, outside of all promises but that no other line is lost."""

    def keep(self, path: str, data: bytes) -> bool:
        """See to it that a file of this content stays, as young as a new one; False if it is gone."""

    def settle(self, folder: str) -> None:
        """See to it that the files in `folder` stay: who wrote them may have been killed a moment later."""

    # -- taking out ----------------------------------------------------------------------------------------

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with all that is in it, so that it stays removed; none is fine."""

    def set_aside(self, path: str, why: str) -> None:
        """Move a file, or what lies in its place, to `aside/`; see `data.store.aside`. None is fine."""

    def entries(self) -> Iterator[Entry]:
        """Every file that may be garbage, and others. Links are not followed, and not named."""

    def sweep(self, paths: Sequence[str], since: float) -> set[str]:
        """Remove those files that were not written or used after `since`; which ones are gone."""

    def idle(self, since: float) -> list[str]:
        """Folders of units in which nothing was made or removed after `since`."""

    def drop(self, folder: str) -> None:
        """Remove a folder if it is empty."""

    # -- processes -----------------------------------------------------------------------------------------

    def lock(self, name: str, wait: bool = True) -> AbstractContextManager[None]:
        """Hold `locks/<name>` against every other process.

        Raises StoreError: another holds it and this one does not `wait`; or there are no locks.
        """

    # -- the place -----------------------------------------------------------------------------------------

    def attach(self, connection: Any) -> None:
        """Let a DuckDB connection read files by the names that `where` gives."""

    def make(self) -> list[str]:
        """Make the place of a new store. Returns the names that lie in it already."""

    def require_working(self) -> None:
        """Try what a store needs, once a process. Raises StoreError: it lacks something."""

    def trials(self) -> Iterator[Trial]:
        """Try all that a store does there; for `vidloop doctor`."""


def plain(path: str) -> str:
    """`path`, for a path that came from data.

    Raises StoreError: it is absolute, climbs out with "..", or is not plain.
    """
    if not _PLAIN.fullmatch(path):
        raise StoreError(f"{path!r} is not a path inside a store: it must be plain names joined by '/'")
    return path
