"""A store in a folder: files of a POSIX file system, or of several (`media` may be a mount or a link)."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from data.errors import StoreError
from data.keys import bytes_digest, file_digest
from data.store import trials
from data.store.aside import set_aside
from data.store.backend import Entry, Trial, plain
from data.store.durable_files import (
    is_folder,
    lock_file,
    make_folder,
    make_safe,
    place,
    remove,
    storage_errors,
    sync_folder,
    write_durably,
)

_TOPS: Final = (
    "calibrations", "improvements", "locks", "manifests", "media", "parts", "rewards", "rounds", "runs",
    "scratch", "tmp",
)  # fmt: skip
_UNITS_FOLDER: Final = re.compile(r"parts/[^/]+/[^/]+/[^/]+|scratch/[^/]+", re.DOTALL)


class Folder:
    """A `data.store.backend.Backend`.

    Attributes:
        root: absolute path of the folder.
    """

    rots = True  # a disk may; nothing below a file system keeps digests for certain

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def url(self) -> str:
        """The folder's path."""
        return str(self.root)

    @property
    def workspace(self) -> Path:
        """The store's own folder: work goes on where it began, on whichever machine."""
        return self.root

    def path(self, path: str) -> Path:
        """Absolute path of a file. Raises StoreError: `path` leaves the store."""
        return self.root / plain(path)

    def _at(self, path: str) -> str:
        """As `path`, for what is asked of every file of a round: a `Path` takes longer than the answer."""
        return f"{self.root}/{plain(path)}"

    def where(self, path: str = "") -> str:
        """The absolute path."""
        return self._at(path) if path else str(self.root)

    def local(self, path: str) -> Path:
        """The file itself."""
        return self.path(path)

    # -- reading -------------------------------------------------------------------------------------------

    def read(self, path: str) -> bytes:
        """As `Backend`."""
        with open(self._at(path), "rb") as file:
            return file.read()

    def size(self, path: str) -> int:
        """As `Backend`; a folder has a size as well."""
        return os.stat(self._at(path)).st_size

    def sizes(self, paths: Sequence[str]) -> dict[str, int]:
        """As `Backend`: none, since `size` costs no request."""
        return {}

    def sha256(self, path: str) -> str:
        """As `Backend`."""
        return file_digest(self._at(path))

    def taken(self, path: str) -> bool:
        """As `Backend`: a link to nothing is something."""
        return os.path.lexists(self._at(path))

    def is_link(self, path: str) -> bool:
        """As `Backend`."""
        return os.path.islink(self._at(path))

    def is_plain(self, path: str) -> bool:
        """As `Backend`."""
        at = self.path(path)
        return at.is_file() and not at.is_symlink() and os.access(at, os.R_OK, effective_ids=True)

    def modified(self, path: str) -> float:
        """As `Backend`."""
        return os.stat(self._at(path)).st_mtime

    def names(self, folder: str) -> list[str]:
        """As `Backend`."""
        at = self.root / folder
        with storage_errors(at), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return os.listdir(at)
        return []

    def find(self, pattern: str) -> list[str]:
        """As `Backend`."""
        return sorted(path.relative_to(self.root).as_posix() for path in self.root.glob(pattern))

    # -- writing -------------------------------------------------------------------------------------------

    def create(self, path: str, data: bytes) -> bool:
        """As `Backend`."""
        return write_durably(self.root / "tmp", self.path(path), data, replace=False)

    def put(self, path: str, data: bytes) -> None:
        """As `Backend`; a folder in the place of the file is set aside."""
        at = self.path(path)
        if is_folder(at):
            self.set_aside(path, "a folder in the place of a file")
        write_durably(self.root / "tmp", at, data, replace=True)

    def token(self, path: str) -> str | None:
        """As `Backend`: a digest of the content."""
        with contextlib.suppress(OSError):
            return bytes_digest(self.read(path))
        return None

    def swap(self, path: str, data: bytes, token: str | None) -> bool:
        """As `Backend`. Between the look and the writing only who holds no lock can change anything."""
        if self.token(path) != token:
            return False
        self.put(path, data)
        return True

    def append(self, path: str, line: str) -> None:
        """As `Backend`."""
        at = self.path(path)
        with storage_errors(at):
            make_folder(at.parent)
            with open(at, "ab+") as file:
                # A crash may have torn the last line; do not let it swallow this one.
                if file.tell() > 0:
                    file.seek(-1, os.SEEK_END)
                    line = line if file.read(1) == b"\n" else "\n" + line
                file.write(line.encode())

    def keep(self, path: str, data: bytes) -> bool:
        """As `Backend`."""
        at = self.path(path)
        with storage_errors(at), contextlib.suppress(FileNotFoundError):
            os.utime(at)
            make_safe(at)
            return True
        return False

    def settle(self, folder: str) -> None:
        """As `Backend`."""
        at = self.path(folder)
        with storage_errors(at):
            if at.is_dir():
                make_folder(at)
                sync_folder(at)

    # -- taking out ----------------------------------------------------------------------------------------

    def remove(self, path: str) -> None:
        """As `Backend`."""
        remove(self.path(path))

    def set_aside(self, path: str, why: str) -> None:
        """As `Backend`."""
        set_aside(self.root, self.path(path), why)

    def entries(self) -> Iterator[Entry]:
        """As `Backend`; no symbolic link is followed: what lies behind it is somebody else's."""
        for relative in self._names():
            with contextlib.suppress(FileNotFoundError):
                status = (self.root / relative).lstat()
                if stat.S_ISREG(status.st_mode):
                    yield Entry(relative, status.st_size, status.st_mtime)

    def sweep(self, paths: Sequence[str], since: float) -> set[str]:
        """As `Backend`."""
        return {path for path in paths if self._take(path, since)}

    def _take(self, path: str, since: float) -> bool:
        """Remove a file unless it was written or used since; whether it is gone.

        Between the look at a file's age and its end a unit may use it: it is moved aside first, looked at
        again, and put back if it is young now.
        """
        at = self.root / path
        aside = at.with_name(f"{uuid.uuid4().hex}.tmp")  # tmp/ may be on another file system
        with storage_errors(at):
            try:
                os.rename(at, aside)
            except FileNotFoundError:  # another collector, or its unit was discarded
                return True
            if aside.lstat().st_mtime > since:
                place(aside, at)  # else it was written anew meanwhile: the same bytes
                aside.unlink(missing_ok=True)
                return False
        remove(aside)
        return True

    def idle(self, since: float) -> list[str]:
        """As `Backend`."""
        found = []
        for name in (one for one in self._names() if _UNITS_FOLDER.fullmatch(one)):
            with contextlib.suppress(FileNotFoundError):
                status = (self.root / name).lstat()
                if stat.S_ISDIR(status.st_mode) and status.st_mtime <= since:
                    found.append(name)
        return found

    def drop(self, folder: str) -> None:
        """As `Backend`."""
        with contextlib.suppress(OSError):  # it is not empty, or gone
            (self.root / folder).rmdir()

    def _names(self) -> list[str]:
        """All that lies where garbage may; a symbolic link is one name, and not entered."""
        found = []
        for top in _TOPS:
            if (self.root / top).is_symlink():  # which os.walk would enter
                continue
            for within, folders, files in os.walk(self.root / top):
                at = Path(within).relative_to(self.root)
                found += [(at / name).as_posix() for name in (*folders, *files)]
        return sorted(found)

    # -- processes, and the place --------------------------------------------------------------------------

    @contextlib.contextmanager
    def lock(self, name: str, wait: bool = True) -> Iterator[None]:
        """As `Backend`, by flock: a process that dies lets go at once."""
        relative = f"locks/{name}.lock"
        path = self.path(relative)
        if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
            self.set_aside(relative, "it is no file")
        with storage_errors(path):
            make_folder(path.parent)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            with storage_errors(path):
                locked = lock_file(descriptor, path, wait)
            if not locked:
                raise StoreError(f"{self.root}: another `vidloop {name}` works here: wait for it")
            yield
        finally:
            os.close(descriptor)

    def attach(self, connection: Any) -> None:
        """As `Backend`: DuckDB reads files by itself."""

    def make(self) -> list[str]:
        """As `Backend`."""
        with storage_errors(self.root):
            make_folder(self.root)
            return [entry.name for entry in self.root.iterdir()]

    def require_working(self) -> None:
        """As `Backend`."""
        trials.require_working(self.root)

    def trials(self) -> Iterator[Trial]:
        """As `Backend`."""
        return trials.trials(self.root)
