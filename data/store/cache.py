"""A cache on this machine of files named by their content, of bounded size: the longest unused goes first.

    <folder>/media/<sh>/<sha256>.<ext>

A file's name says what it must hold, so nothing in here can be out of date.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final

from data.errors import StoreError
from data.keys import bytes_digest
from data.store.durable_files import storage_errors

FOLDER_VARIABLE: Final = "VIDLOOP_CACHE"
SIZE_VARIABLE: Final = "VIDLOOP_CACHE_GB"
_SIZE_GB: Final = 20.0
# Whoever asked for a file a moment ago opens it now.
_IN_USE_S: Final = 900.0


def cache_folder() -> Path:
    """Where vidloop keeps what it can have again: VIDLOOP_CACHE, or a folder in the user's cache."""
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "vidloop"


def cache_bytes() -> int:
    """How much the cache of a store may hold: VIDLOOP_CACHE_GB, else 20 GB."""
    said = os.environ.get(SIZE_VARIABLE, "")
    try:
        size = float(said) if said else _SIZE_GB
    except ValueError:
        size = -1.0
    if not 0 <= size <= 1e6:
        raise StoreError(f"{SIZE_VARIABLE}={said}: it must be gigabytes, 0 to 1000000")
    return int(size * 1e9)


class Cache:
    """Files by their content's name, in a folder that several processes may share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held: int | None = None

    def get(self, path: str) -> Path | None:
        """The file, whole; None if it is not held."""
        file = self.folder / path
        with contextlib.suppress(OSError):
            if bytes_digest(file.read_bytes()) == file.stem:
                os.utime(file)
                return file
            file.unlink()  # a disk that rots, a crash: it is had again
        return None

    def put(self, path: str, write: Callable[[Path], None]) -> Path:
        """Keep a file; `write` makes it at the path that it is given. Raises StoreError: there is no room."""
        file = self.folder / path
        unfinished = file.with_name(f"{uuid.uuid4().hex}.tmp")
        with storage_errors(file, f"make the cache writable, or name another folder with {FOLDER_VARIABLE}"):
            file.parent.mkdir(parents=True, exist_ok=True)
            try:
                write(unfinished)
                size = unfinished.stat().st_size
                os.replace(unfinished, file)
            finally:
                unfinished.unlink(missing_ok=True)
            self._make_room(size)
        return file

    def _make_room(self, new: int) -> None:
        """Remove what was unused longest, once there is more than there may be."""
        bound = cache_bytes()
        self._held = None if self._held is None else self._held + new
        if self._held is not None and self._held <= bound:
            return
        held = []
        for file in self.folder.glob("*/*/*"):
            with contextlib.suppress(FileNotFoundError):
                status = file.stat()
                held.append((status.st_mtime, status.st_size, file))
        total, now = sum(size for _, size, _ in held), time.time()
        for used, size, file in sorted(held, key=lambda one: one[:2]):
            if total <= bound or now - used < _IN_USE_S:
                break
            file.unlink(missing_ok=True)
            total -= size
        self._held = total
