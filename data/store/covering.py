"""Units that segments cover: their manifests and rows, where their own files are gone or many are read."""

from __future__ import annotations

import bisect
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa

from data.records import TABLES
from data.store.manifest import Damaged, Manifest, Part
from data.store.segments import Segment, Units, groups, keys_of, live, manifest_readers

log = logging.getLogger("vidloop.store")


class Covering:
    """Which of some units segments cover, looked up once for all, and not before it is asked.

    A segment that is damaged says nothing, and that is logged: what it covers may lie where it was.
    """

    def __init__(self, store: Units, keys: Iterable[str]) -> None:
        """`keys`: of the units that the methods may be asked about; others count as not covered."""
        self._store, self._keys = store, keys
        self._whole: dict[tuple[str, str], bool] = {}

    @cached_property
    def _found(self) -> list[tuple[Segment, np.ndarray]]:
        """Segments with the places of the units in them, ascending."""
        asked = keys_of(self._keys)
        found = []
        try:
            for segment in live(self._store) if len(asked) else ():
                places = segment.index.places(asked)
                here = np.unique(places[(places >= 0) & ~segment.dead[places]])
                if len(here):
                    found.append((segment, here))
        except Damaged as error:
            log.warning("a segment is left out: %s", error)
        return found

    @cached_property
    def _segments(self) -> dict[str, Segment]:
        return {key: segment for segment, places in self._found for key in _named(segment, places)}

    def manifests(self, keys: Iterable[str]) -> Iterator[Manifest]:
        """The manifests of those of these units that are covered, in no order.

        Raises StoreError: one is of a newer version.
        """
        asked = keys_of(keys)
        for segment, covered in self._found if len(asked) else ():
            places = covered[np.isin(segment.index.keys[covered], asked)]
            try:
                for read in manifest_readers(self._store, segment, places) if len(places) else ():
                    yield from _manifests(segment, read)
            except Damaged as error:
                log.warning("a segment is left out: %s", error)

    def holds(self, part: Part) -> bool:
        """Whether a segment, whose files are there, has the rows of a unit's part."""
        segment = self._segments.get(part.unit)
        if segment is None:
            return False
        name = (segment.manifest.key, part.table)
        if name not in self._whole:
            faults = (self._store.fault(one, "size") for one in segment.files(part.table))
            self._whole[name] = all(fault is None for fault in faults)
        return self._whole[name]

    def rows(self, table: str, columns: Sequence[str] = ()) -> dict[str, pa.Table]:
        """Rows of one table, or some columns of it, of those of the units that are covered, by key."""
        found: dict[str, pa.Table] = {}
        try:
            for segment, places in self._found:
                rows = _rows(self._store, segment, places.tolist(), table, columns)
                found |= zip(_named(segment, places), rows, strict=True)
        except Damaged as error:
            log.warning("a segment is left out: %s", error)
        return found


def _named(segment: Segment, places: np.ndarray) -> list[str]:
    return [key.decode() for key in segment.index.keys[places].tolist()]


def _manifests(segment: Segment, read: Callable[[], Iterator[bytes]]) -> Iterator[Manifest]:
    """Those of some manifests that are whole."""
    try:
        some = read()
    except Damaged as error:
        log.warning("some of a segment is left out: %s", error)
        return
    for data in some:
        try:
            yield Manifest.from_bytes(data, f"a manifest of segment {segment.manifest.key}")
        except Damaged as error:
            log.warning("some of a segment is left out: %s", error)


def _rows(
    store: Units, segment: Segment, places: Sequence[int], table: str, columns: Sequence[str]
) -> list[pa.Table]:
    """Rows of units at these places, ascending, a table each."""
    schema = TABLES[table].schema
    if columns:
        schema = pa.schema(map(schema.field, columns), schema.metadata)
    pieces: list[list[pa.Table]] = [[schema.empty_table()] for _ in places]
    if table in segment.index.rows:
        counts = np.maximum(segment.index.rows[table], 0)
        ends = np.cumsum(counts)
        spans = [(int(ends[place] - counts[place]), int(ends[place])) for place in places]
        first = 0  # of those that may go on: they ascend, as the row groups do
        for begin, end, read in groups(store, segment, table):
            while first < len(spans) and spans[first][1] <= begin:
                first += 1
            here = range(first, bisect.bisect_left(spans, (end,)))
            if here:
                rows = read(schema.names).cast(schema)
                for at in here:
                    start, stop = max(spans[at][0], begin), min(spans[at][1], end)
                    pieces[at].append(rows.slice(start - begin, max(stop - start, 0)))
    return [pa.concat_tables(some) for some in pieces]
