"""What a disk may hold after a power cut, from a record of what was written and synced.

The model is the strict one, of which every file system allows a part (Pillai et al., "All File Systems Are Not
Created Equal", OSDI 2014): what was written is on disk for certain after fsync of the file; that a name was
made, moved or removed, after fsync of the folder it stands in. Everything else may be there, be missing, or
be there in part, each on its own and in any order. A rename is one step.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from data.keys import bytes_digest, digest
from tests.chaos.file_layer import Operation

Kept = Literal["whole", "lost", "torn", "zeros"]
CUTS: Final = ("lost", "empty", "zeros", "torn")
"""Power cuts without chance.

    lost     what was not synced is not there
    empty    names are there, contents that were not synced are not: files are empty
    zeros    likewise, and files have their size, filled with zeros
    torn     likewise, and files have the first half of their content
"""
ROOT: Final = 0


@dataclass(frozen=True)
class Names:
    """Names that are made and removed in one step: (folder, name, what) and (folder, name)."""

    made: tuple[tuple[int, str, int], ...]
    gone: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class Content:
    """Bytes written to a file at an offset; None: it is emptied."""

    file: int
    offset: int
    data: bytes | None


@dataclass(frozen=True)
class Sync:
    """Of a file or a folder."""

    what: int


@dataclass
class Record:
    """What happened on a disk, from what was there (and safe) before.

    Attributes:
        steps: one for each operation.
        folders: ids that are folders; the others are files.
    """

    steps: list[Names | Content | Sync] = field(default_factory=list)
    folders: set[int] = field(default_factory=lambda: {ROOT})
    _before: dict[int, dict[str, int]] = field(default_factory=lambda: {ROOT: {}})
    _contents: dict[int, bytes] = field(default_factory=dict)
    _live: dict[int, dict[str, int]] = field(default_factory=lambda: {ROOT: {}})
    _by_inode: dict[int, int] = field(default_factory=dict)
    _next: int = 1

    @classmethod
    def of(cls, root: Path, operations: Sequence[Operation], before: Record | None = None) -> Record:
        """A record that begins with what lies below `root` now, unless `before` says what was there."""
        record = before or cls().begin(root)
        for operation in operations:
            record.add(operation)
        return record

    def begin(self, root: Path) -> Record:
        """Take what lies below `root` as safe; returns itself."""
        at = {os.path.realpath(root): ROOT}
        self._by_inode[os.stat(root).st_ino] = ROOT
        for place, folders, files in os.walk(os.path.realpath(root)):
            for name in (*folders, *files):
                path = os.path.join(place, name)
                node = self._new(os.lstat(path).st_ino, name in folders)
                at[path] = node
                self._before[at[place]][name] = node
                if name in files:
                    self._contents[node] = Path(path).read_bytes()
        self._live = {folder: dict(names) for folder, names in self._before.items()}
        return self

    def _new(self, inode: int, folder: bool) -> int:
        node, self._next = self._next, self._next + 1
        self._by_inode[inode] = node
        if folder:
            self.folders.add(node)
            self._before[node], self._live[node] = {}, {}
        return node

    def _at(self, path: str) -> tuple[int, str]:
        """The folder that a path's last name stands in, and the name."""
        *folders, name = path.split("/")
        node = ROOT
        for one in folders:
            node = self._live[node][one]
        return node, name

    def add(self, operation: Operation) -> None:
        """Note one operation."""
        kind = operation.kind
        if kind in ("sync", "sync folder"):
            self.steps.append(Sync(self._by_inode[operation.inode]))
        elif kind in ("write", "truncate"):
            data = operation.data if kind == "write" else None
            self.steps.append(Content(self._by_inode[operation.inode], operation.offset, data))
        elif kind in ("create", "mkdir"):
            self._name(self._at(operation.path), self._new(operation.inode, kind == "mkdir"))
        elif kind == "link":
            self._name(self._at(operation.to), self._by_inode[operation.inode])
        else:
            folder, name = self._at(operation.path)
            node = self._live[folder].pop(name)
            if kind == "rename":
                self._name(self._at(operation.to), node, ((folder, name),))
            else:
                self.steps.append(Names((), ((folder, name),)))

    def _name(self, at: tuple[int, str], node: int, gone: tuple[tuple[int, str], ...] = ()) -> None:
        folder, name = at
        self._live[folder][name] = node
        self.steps.append(Names(((folder, name, node),), gone))

    # -- states --------------------------------------------------------------------------------------------

    def unsafe(self, end: int, lied: int | None = None) -> list[int]:
        """Steps before `end` that a power cut then may take back; sync number `lied` counts for nothing."""
        synced: set[int] = set()
        found = []
        for place in range(end - 1, -1, -1):
            match self.steps[place]:
                case Sync(what) if place != lied:
                    synced.add(what)
                case Content(file) if file not in synced:
                    found.append(place)
                case Names(made, gone):
                    where = {one[0] for one in made} or {one[0] for one in gone}
                    if not where & synced:
                        found.append(place)
        return found[::-1]

    def state(self, end: int, kept: Callable[[int], Kept], lied: int | None = None) -> State:
        """The disk after a power cut behind step `end` - 1; `kept` says what becomes of each unsafe step."""
        unsafe = set(self.unsafe(end, lied))
        names = {folder: dict(found) for folder, found in self._before.items()}
        contents: dict[int, bytes] = dict(self._contents)
        for place, step in enumerate(self.steps[:end]):
            fate: Kept = kept(place) if place in unsafe else "whole"
            if isinstance(step, Content):
                contents[step.file] = _written(contents.get(step.file, b""), step, fate)
            elif isinstance(step, Names) and fate == "whole":
                for folder, name in step.gone:
                    names[folder].pop(name, None)
                for folder, name, node in step.made:
                    names[folder][name] = node
        return State(self.folders, names, contents)

    def cut(self, how: str, end: int) -> State:
        """One of `CUTS`."""
        contents: Kept = {"empty": "lost", "zeros": "zeros", "torn": "torn"}.get(how, "lost")  # type: ignore[assignment]

        def kept(place: int) -> Kept:
            if isinstance(self.steps[place], Content):
                return contents
            return "lost" if how == "lost" else "whole"

        return self.state(end, kept)

    def by_lot(self, end: int, lot: random.Random) -> State:
        """Each unsafe step is kept, lost, or for contents torn, by lot."""
        some: tuple[Kept, ...] = ("whole", "lost", "torn", "zeros")

        def kept(place: int) -> Kept:
            return lot.choice(some if isinstance(self.steps[place], Content) else some[:2])

        return self.state(end, kept)

    def lie(self, place: int, how: Kept) -> State:
        """Everything is there at the end but what the sync at `place` claimed to have made safe."""
        before = set(self.unsafe(len(self.steps)))
        doubtful = set(self.unsafe(len(self.steps), lied=place)) - before
        return self.state(len(self.steps), lambda one: how if one in doubtful else "whole", lied=place)


@dataclass(frozen=True)
class State:
    """Folders, names and contents of a disk."""

    folders: set[int]
    names: dict[int, dict[str, int]]
    contents: dict[int, bytes]

    def files(self) -> dict[str, bytes | None]:
        """Content by path; None for a folder."""
        found: dict[str, bytes | None] = {}
        todo = [(ROOT, "")]
        while todo:
            folder, at = todo.pop()
            for name, node in self.names[folder].items():
                if node in self.folders:
                    found[at + name] = None
                    todo.append((node, f"{at}{name}/"))
                else:
                    found[at + name] = self.contents.get(node, b"")
        return found

    @property
    def digest(self) -> str:
        files = self.files()
        return digest({name: "" if data is None else bytes_digest(data) for name, data in files.items()})

    def write(self, root: Path) -> None:
        """Make `root`, which is not there, hold this."""
        root.mkdir(parents=True)
        for name, data in sorted(self.files().items()):
            if data is None:
                (root / name).mkdir()
            else:
                (root / name).write_bytes(data)
                (root / name).chmod(0o600)


def _written(held: bytes, step: Content, fate: Kept) -> bytes:
    if step.data is None:
        return b"" if fate == "whole" else held
    if fate == "lost":
        return held
    data = step.data if fate != "torn" else step.data[: len(step.data) // 2]
    if fate == "zeros":
        data = bytes(len(data))
    padded = held.ljust(step.offset, b"\0")
    return padded[: step.offset] + data + padded[step.offset + len(data) :]
