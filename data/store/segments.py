"""Segments: rows of many units in few large files, so that what reads them all opens few files.

A segment is a unit of stage `segments` like any other: immutable, named by its question, with a manifest as
its commit point. `data.store.compaction` makes them. Its parts:

    <table>    rows of the units it covers, in the order of the units' keys and, of a unit, as its part had
               them; beside the table's columns `_unit` (the unit's place in the index, from 0) and `_shown`
               (whether the row stands for its key among the segment's rows: the first of them in the order
               of all columns)
    index      a row for each unit, by key: key, stage, digest of its manifest, and rows.<table>, null where
               it has no such table
    manifests  the bytes of their manifests, in the same order

Large tables have several files. A segment's `info` says of which tables it has keys in common with which
other segment. What a segment covers stays where it was, and `Store` reads it there; a unit whose own files
are gone is read here.

A unit that is discarded after a segment was made is *dropped* from it: a unit of stage `dropped`, without
rows, says so. It and the making of a segment hold one lock, so that no unit comes back.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.bounded import Bounded
from data.keys import digest
from data.records import Row
from data.store.backend import Backend
from data.store.manifest import Damaged, Manifest, Media, Part

STAGE: Final = "segments"
# Of how they are written. One of another version is not read: the units that it covers are, where they lie.
VERSION: Final = 2
DROPPED: Final = "dropped"
LOCK: Final = "segments"
INDEX: Final = "index"
MANIFESTS: Final = "manifests"
# Of the stages above: their units are covered by no segment.
OWN: Final = frozenset({STAGE, DROPPED})

ROWS: Final = "rows."

# What this process has read, by digest; and what counts of a store, beside the names that it rests on. Both
# as long as they are of so many units together, a unit being about 250 bytes.
_UNITS: Final = 2_000_000
_indexes: Final[Bounded[str, Index]] = Bounded(_UNITS, lambda one: len(one.keys))
_live: Final[Bounded[str, tuple[tuple[PurePosixPath, ...], list[Segment]]]] = Bounded(
    _UNITS, lambda one: 1 + sum(len(segment.index.keys) for segment in one[1])
)
log = logging.getLogger("vidloop.store")


class Units(Protocol):
    """What segments ask of the store that holds them: methods of `data.store.Store`."""

    backend: Backend

    @property
    def remedy(self) -> str:
        """What to do about a damaged file."""

    def manifest(self, key: str) -> Manifest | None:
        """See `Store.manifest`."""

    def manifests(self, stage: str | None = None) -> list[Manifest]:
        """See `Store.manifests`."""

    def manifest_files(self, stage: str | None = None) -> list[PurePosixPath]:
        """See `Store.manifest_files`."""

    def without_file(self, keys: Iterable[str]) -> list[str]:
        """See `Store.without_file`."""

    def fault(self, item: Part | Media, level: Literal["hash", "size"] = "hash") -> str | None:
        """See `Store.fault`."""

    def read_part(self, part: Part) -> bytes:
        """See `Store.read_part`."""

    def commit(
        self, stage: str, question: Mapping[str, Any], tables: Mapping[str, Sequence[Row]]
    ) -> Manifest:
        """See `Store.commit`."""


@dataclass(frozen=True, slots=True)
class Index:
    """What a segment covers.

    Attributes:
        keys: [U] keys of its units, ascending.
        stages: [U] their stages.
        digests: [U] SHA-256 of their manifests.
        rows: table -> [U] how many rows each has of it; -1: it has no such table.
    """

    keys: np.ndarray
    stages: pa.ChunkedArray
    digests: pa.ChunkedArray
    rows: Mapping[str, np.ndarray]

    def places(self, keys: np.ndarray) -> np.ndarray:
        """[N] places of keys, -1 of those that it does not cover."""
        if not len(self.keys):
            return np.full(len(keys), -1)
        found = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[found] == keys, found, -1)


@dataclass(frozen=True)
class Segment:
    """A segment of the store, as far as it counts.

    Attributes:
        manifest: its own.
        index: what it covers.
        dead: [U] units that do not count: dropped, or taken from a larger segment.
    """

    manifest: Manifest
    index: Index
    dead: np.ndarray

    @property
    def alive(self) -> int:
        """How many units count."""
        return int((~self.dead).sum())

    def files(self, table: str) -> list[Part]:
        """The files with rows of a table, in their order."""
        return [part for part in self.manifest.parts if part.table == table]

    def is_apart(self, other: Segment, table: str) -> bool:
        """Whether this segment and another are known to have no key of a table in common."""
        pairs = ((self.manifest, other.manifest), (other.manifest, self.manifest))
        return any(
            older.key in newer.question["beside"] and older.key not in newer.info["overlaps"].get(table, ())
            for newer, older in pairs
        )


def keys_of(keys: Iterable[str]) -> np.ndarray:
    """Keys as an array, as `Index` has them."""
    return np.array(list(keys), dtype="S64")


def live(store: Units) -> list[Segment]:
    """The segments that count, the largest first; every unit counts in one of them at most.

    Raises:
        Damaged: a segment was changed.
    """
    made, gone = (store.manifest_files(stage) for stage in (STAGE, DROPPED))
    if not made:
        return []
    # Both only grow, and what lies under a name never changes: the names decide.
    now = (*made, *gone)
    before = _live.get(store.backend.url)
    if before is None or before[0] != now:
        before = _live.put(store.backend.url, (now, _counting(store)))
    return before[1]


def _counting(store: Units) -> list[Segment]:
    dropped: dict[str, list[str]] = {}
    for one in store.manifests(DROPPED):
        dropped.setdefault(one.question["segment"], []).append(one.question["unit"])
    found: list[Segment] = []
    made = [one for one in store.manifests(STAGE) if one.question["version"] == VERSION]
    for manifest in sorted(made, key=lambda one: (-int(one.info["units"]), one.key)):
        index = index_of(store, manifest)
        dead = np.zeros(len(index.keys), bool)
        gone = index.places(keys_of(dropped.get(manifest.key, ())))
        dead[gone[gone >= 0]] = True
        for other in found:
            places = other.index.places(index.keys)
            dead |= (places >= 0) & ~other.dead[places]
        if not dead.all():
            found.append(Segment(manifest, index, dead))
    return found


def index_of(store: Units, manifest: Manifest) -> Index:
    """What a segment covers. Raises Damaged: its index was changed."""
    part = _only(manifest, INDEX)
    index = _indexes.get(part.sha256)
    if index is None:
        with pq.ParquetFile(pa.BufferReader(store.read_part(part))) as file:
            table = file.read()
        rows = {
            column.removeprefix(ROWS): table.column(column).fill_null(-1).to_numpy()
            for column in table.column_names
            if column.startswith(ROWS)
        }
        keys = keys_of(table.column("key").to_pylist())
        index = Index(keys, table.column("stage"), table.column("digest"), rows)
        _indexes.put(part.sha256, index)
    return index


def tail(store: Units) -> list[PurePosixPath]:
    """Where the manifests of units lie that are in no segment, by key. Raises as `live`."""
    paths = [path for path in store.manifest_files() if path.parent.name not in OWN]
    counting = live(store)
    if not counting:
        return paths
    covered = _counted(counting, keys_of(path.stem for path in paths))
    return [path for path, one in zip(paths, covered, strict=True) if not one]


def _counted(counting: Sequence[Segment], keys: np.ndarray) -> np.ndarray:
    """[N] whether a segment covers each key."""
    found = np.zeros(len(keys), bool)
    for segment in counting:
        places = segment.index.places(keys)
        found |= (places >= 0) & ~segment.dead[places]
    return found


def manifest_bytes(store: Units, segment: Segment, places: np.ndarray) -> Iterator[bytes]:
    """The manifests of the units at these places, ascending, as they were committed.

    Raises Damaged: the segment was changed.
    """
    for read in manifest_readers(store, segment, places):
        yield from read()


def manifest_readers(
    store: Units, segment: Segment, places: np.ndarray
) -> Iterator[Callable[[], Iterator[bytes]]]:
    """As `manifest_bytes`, some at a time: what gives the next of them, and raises Damaged by itself."""
    for begin, end, read in groups(store, segment, MANIFESTS):
        here = places[(places >= begin) & (places < end)] - begin
        if len(here):
            yield functools.partial(_column, read, here.tolist())


def _column(read: Callable[[Sequence[str]], pa.Table], places: Sequence[int]) -> Iterator[bytes]:
    column = read(["manifest"]).column("manifest")
    return (column[place].as_py() for place in places)


def with_covered(store: Units, stage: str | None, found: list[Manifest]) -> list[Manifest]:
    """Manifests (of one stage), and those of units that only a segment has, sorted by key.

    Raises Damaged: a segment was changed.
    """
    known = keys_of(one.key for one in found)
    for segment in live(store) if stage not in OWN else ():
        wanted = ~segment.dead
        there = segment.index.places(known)
        wanted[there[there >= 0]] = False
        if stage is not None:
            wanted &= np.array([one == stage for one in segment.index.stages.to_pylist()], bool)
        where = f"a manifest of segment {segment.manifest.key}"
        read = manifest_bytes(store, segment, np.flatnonzero(wanted))
        found = [*found, *(Manifest.from_bytes(data, where) for data in read)]
    return sorted(found, key=lambda one: one.key)


def superseded(store: Units, since: float) -> list[Manifest]:
    """Segments of which nothing counts any more, and words of units dropped from segments that are gone.

    Args:
        since: what came in their place is older than this (seconds since 1970), so that nobody reads them.

    Raises Damaged: a segment was changed.
    """
    counting = {one.manifest.key for one in live(store)}
    made = store.manifests(STAGE)
    times = {
        entry.path: entry.time
        for entry in store.backend.entries()
        if entry.path.startswith((f"manifests/{STAGE}/", f"manifests/{DROPPED}/"))
    }

    def is_old(one: Manifest) -> bool:
        return times.get(f"manifests/{one.stage}/{one.key}.json", since) < since

    if not all(is_old(one) for one in made if one.key in counting):
        return []
    there = {one.key for one in made} | {""}
    gone = [one for one in store.manifests(DROPPED) if one.question["segment"] not in there and is_old(one)]
    return [*(one for one in made if one.key not in counting), *gone]


def drop(store: Units, key: str) -> None:
    """Drop a unit from every segment that covers it, or is being made. Hold the lock.

    Raises StoreError: the store cannot be written.
    """
    for manifest in store.manifests(STAGE):
        try:
            covered = index_of(store, manifest).places(keys_of([key]))[0] >= 0
        except Damaged as error:
            log.warning("a segment is left out: %s", error)
            continue
        if covered:
            drop_from(store, manifest.key, key)
    if store.backend.taken(f"manifests/{DROPPED}/{digest(_dropped('', ''))}.json"):
        drop_from(store, "", key)


def drop_from(store: Units, segment: str, key: str) -> None:
    """Drop a unit from one segment, be it made yet or not. Raises as `drop`."""
    store.commit(DROPPED, _dropped(segment, key), {})


def note_drops(store: Units) -> None:
    """From now on `drop` says "" is a segment that covers every unit; see `data.store.compaction`."""
    drop_from(store, "", "")


def _dropped(segment: str, key: str) -> dict[str, Any]:
    return {"stage": DROPPED, "version": 1, "segment": segment, "unit": key}


def _only(manifest: Manifest, table: str) -> Part:
    part = manifest.part(table)
    if part is None:
        raise Damaged(f"segment {manifest.key} has no {table}")
    return part


def groups(
    store: Units, segment: Segment, table: str
) -> Iterator[tuple[int, int, Callable[[Sequence[str]], pa.Table]]]:
    """The row groups of a table's files: number of the first row and of the last but one, and a reader.

    Pages are checked as they are read: to hash a file whole would be to read much that nobody asked for.
    """
    begin = 0
    for part in segment.files(table):
        try:
            path = store.backend.local(part.path)
            if path.stat().st_size != part.bytes:
                raise Damaged(f"size of part {part.path} differs", store.remedy)
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                for group in range(file.num_row_groups):
                    end = begin + file.metadata.row_group(group).num_rows
                    yield begin, end, functools.partial(_group, store, part, file, group)
                    begin = end
        except (pa.ArrowException, OSError, LookupError, ValueError) as error:
            where = store.backend.where(part.path)
            raise Damaged(f"cannot read {where}: {error}", store.remedy) from error


def _group(store: Units, part: Part, file: pq.ParquetFile, group: int, columns: Sequence[str]) -> pa.Table:
    try:
        return file.read_row_group(group, columns=list(columns), use_threads=False)
    except (pa.ArrowException, OSError, LookupError, ValueError) as error:
        where = store.backend.where(part.path)
        raise Damaged(f"cannot read {where}: {error}", store.remedy) from error
