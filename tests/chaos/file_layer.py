"""A layer between a job and its files: it sees every operation that changes a folder, and can fail at a chosen one.

Python's own doors are replaced (`os.*`, `open`), in the process that asks for it: all that the store, the
checkpoints, the exports and the server write passes through them. Files outside the folder are left alone.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

KINDS: Final = (
    "create", "write", "truncate", "sync", "sync folder", "mkdir", "link", "rename", "unlink", "rmdir",
)  # fmt: skip
# What a full disk still does.
FREES: Final = ("unlink", "rmdir", "truncate")
LIVE: Final = (
    "killed", "torn write, killed", "killed at Ctrl-C", "foreign error", "EIO", "EIO and dead", "ENOSPC",
    "short write, ENOSPC", "EROFS",
)  # fmt: skip
"""Faults that happen to a process at one operation; those after a power cut are of `tests.chaos.crash_states`.

    killed                SIGKILL before it
    torn write, killed    half of the bytes, then SIGKILL
    killed at Ctrl-C      KeyboardInterrupt
    foreign error         a RuntimeError, as a defect would raise
    EIO                   this one fails, the next one works
    EIO and dead          this one and all that follow fail
    ENOSPC                the disk is full from here on; what frees space works
    short write, ENOSPC   half of the bytes are written, then the disk is full
    EROFS                 the file system is read-only from here on
"""


class Operation(NamedTuple):
    """One change: its kind, the path below the folder, and for a rename or link where it goes."""

    kind: str
    path: str
    to: str = ""
    data: bytes = b""
    offset: int = 0
    inode: int = 0


class PretendKilled(BaseException):
    """The process is over as far as its files can tell; used where a real kill would end the recording."""


def applies(fault: str, kind: str) -> bool:
    """Whether this operation can meet this fault."""
    if fault in ("torn write, killed", "short write, ENOSPC"):
        return kind == "write"
    return fault != "ENOSPC" or kind not in FREES


@dataclass
class Fault:
    """Fails at operation number `place` (from 0), and where the kind says so at all that follow."""

    kind: str
    place: int
    met: bool = False

    def before(self, done: int, operation: Operation, half: Callable[[], object]) -> None:
        """Do what the fault does, if its time has come."""
        first = done == self.place and not self.met
        if not first and not self.met:
            return
        self.met = True
        full = self.kind in ("ENOSPC", "short write, ENOSPC")
        if first:
            match self.kind:
                case "killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "torn write, killed":
                    half()
                    os.kill(os.getpid(), signal.SIGKILL)
                case "killed at Ctrl-C":
                    raise KeyboardInterrupt
                case "foreign error":
                    raise RuntimeError("a defect, made for this test")
                case "EIO":
                    raise OSError(errno.EIO, os.strerror(errno.EIO), operation.path)
                case "short write, ENOSPC":
                    half()
        if self.kind == "pretend killed":
            raise PretendKilled
        for name, number in (("EIO and dead", errno.EIO), ("EROFS", errno.EROFS)):
            if self.kind == name:
                raise OSError(number, os.strerror(number), operation.path)
        if full and operation.kind not in FREES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), operation.path)


class FileLayer:
    """Sees what changes below `root`.

    Attributes:
        operations: what happened so far; an operation that failed is not in it.
        fault: what is to fail, if anything.
    """

    def __init__(self, root: Path, fault: Fault | None = None, keep: bool = False) -> None:
        self.root = os.path.realpath(root)
        self.operations: list[Operation] = []
        self.fault = fault
        self.count = 0
        self._keep = keep
        self._real: dict[str, Any] = {}

    # -- what every operation passes -----------------------------------------------------------------------

    def _meet(self, operation: Operation, half: Callable[[], object] = lambda: None) -> None:
        if self.fault is not None:
            self.fault.before(self.count, operation, half)
        self.count += 1

    def _done(self, operation: Operation, inode_of: str | int | None = None) -> None:
        if inode_of is not None:
            status = os.fstat(inode_of) if isinstance(inode_of, int) else os.lstat(inode_of)
            operation = operation._replace(inode=status.st_ino)
        # A layer that only counts keeps no contents.
        self.operations.append(operation if self._keep else operation._replace(data=b""))

    def _below(self, path: Any, dir_fd: int | None = None) -> str | None:
        """The path relative to the root ("" for the root itself); None if it lies elsewhere."""
        if isinstance(path, int):
            full = os.readlink(f"/proc/self/fd/{path}").removesuffix(" (deleted)")
        else:
            full = os.fsdecode(os.fspath(path))
            if dir_fd is not None:
                full = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), full)
            full = os.path.abspath(full)
        if full == self.root:
            return ""
        return full[len(self.root) + 1 :] if full.startswith(self.root + "/") else None

    # -- the doors -----------------------------------------------------------------------------------------

    def _open(
        self,
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Any = None,
    ) -> Any:
        path = self._below(file) if set(mode) & set("wax+") and not isinstance(file, bytes) else None
        if path is None:
            return self._real["open"](file, mode, buffering, encoding, errors, newline, closefd, opener)
        there = isinstance(file, int) or os.path.lexists(file)
        made = Operation("truncate" if there else "create", path)
        changes = (not there and "x" in mode) or "w" in mode or (not there and "a" in mode)
        changes = changes and not isinstance(file, int)
        if changes:
            self._meet(made)
        raw = _File(file, mode.replace("b", "").replace("t", ""), closefd, opener)
        raw.layer = self
        if changes:
            self._done(made, raw.fileno())
        if "b" in mode and buffering == 0:
            return raw
        held = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return held if "b" in mode else io.TextIOWrapper(held, encoding, errors, newline)

    def _os_open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        below = self._below(path, dir_fd) if flags & os.O_CREAT else None
        if below is None or os.path.lexists(path):
            return self._real["os.open"](path, flags, mode, dir_fd=dir_fd)
        made = Operation("create", below)
        self._meet(made)
        descriptor = self._real["os.open"](path, flags, mode, dir_fd=dir_fd)
        self._done(made, descriptor)
        return descriptor

    def write(self, file: _File, data: bytes) -> int:
        """Write of an unbuffered file: the only one that reaches the system."""
        path = self._below(file.fileno()) or ""
        appends = "a" in file.mode
        offset = os.fstat(file.fileno()).st_size if appends else file.tell()
        operation = Operation("write", path, data=data, offset=offset)
        self._meet(operation, lambda: file.write_now(data[: len(data) // 2]))
        written = file.write_now(data)
        self._done(operation, file.fileno())
        return written

    def _os_write(self, descriptor: int, data: bytes) -> int:
        path = self._below(descriptor)
        if path is None:
            return self._real["os.write"](descriptor, data)
        offset = os.lseek(descriptor, 0, os.SEEK_CUR)
        operation = Operation("write", path, data=bytes(data), offset=offset)
        self._meet(operation, lambda: self._real["os.write"](descriptor, data[: len(data) // 2]))
        written = self._real["os.write"](descriptor, data)
        self._done(operation, descriptor)
        return written

    def _fsync(self, descriptor: int) -> None:
        path = self._below(descriptor if isinstance(descriptor, int) else descriptor.fileno())
        if path is None:
            return self._real["os.fsync"](descriptor)
        folder = os.path.isdir(f"/proc/self/fd/{descriptor}")
        operation = Operation("sync folder" if folder else "sync", path)
        self._meet(operation)
        self._real["os.fsync"](descriptor)
        self._done(operation, descriptor)

    def _one_path(self, name: str, kind: str) -> Callable[..., None]:
        def door(path: Any, *more: Any, dir_fd: int | None = None, **named: Any) -> None:
            below = self._below(path, dir_fd)
            if below is None:
                return self._real[name](path, *more, dir_fd=dir_fd, **named)
            operation = Operation(kind, below)
            # What would fail anyway is no operation.
            there = os.path.lexists(os.path.join(self.root, below))
            if there == (kind == "mkdir"):
                return self._real[name](path, *more, dir_fd=dir_fd, **named)
            self._meet(operation)
            self._real[name](path, *more, dir_fd=dir_fd, **named)
            self._done(operation, os.path.join(self.root, below) if kind == "mkdir" else None)

        return door

    def _two_paths(self, name: str, kind: str) -> Callable[..., None]:
        def door(source: Any, target: Any, **named: Any) -> None:
            before, after = self._below(source), self._below(target)
            if before is None or after is None or (kind == "link" and os.path.lexists(target)):
                return self._real[name](source, target, **named)
            operation = Operation(kind, before, after)
            self._meet(operation)
            self._real[name](source, target, **named)
            self._done(operation, os.fsdecode(os.fspath(target)))

        return door

    @contextmanager
    def __call__(self) -> Iterator[FileLayer]:
        """Within: this process's doors are watched."""
        doors: dict[tuple[Any, str], Any] = {
            (builtins, "open"): self._open,
            (io, "open"): self._open,
            (os, "open"): self._os_open,
            (os, "write"): self._os_write,
            (os, "fsync"): self._fsync,
            (os, "fdatasync"): self._fsync,
            (os, "mkdir"): self._one_path("os.mkdir", "mkdir"),
            (os, "unlink"): self._one_path("os.unlink", "unlink"),
            (os, "remove"): self._one_path("os.remove", "unlink"),
            (os, "rmdir"): self._one_path("os.rmdir", "rmdir"),
            (os, "link"): self._two_paths("os.link", "link"),
            (os, "rename"): self._two_paths("os.rename", "rename"),
            (os, "replace"): self._two_paths("os.replace", "rename"),
        }
        self._real = {
            ("open" if room is not os else f"os.{name}"): getattr(room, name) for room, name in doors
        }
        for (room, name), door in doors.items():
            setattr(room, name, door)
        try:
            yield self
        finally:
            for room, name in doors:
                setattr(room, name, self._real["open" if room is not os else f"os.{name}"])


class _File(io.FileIO):
    layer: FileLayer

    def write(self, data: Any) -> int:
        return self.layer.write(self, bytes(data))

    def write_now(self, data: bytes) -> int:
        """Past the layer."""
        return super().write(data) or 0
