"""Compaction: the making of segments, see `data.store.segments`.

What no segment covers yet becomes one, together with segments that are not much larger, so that a row is
written again only as often as the logarithm of the store's size, and as few segments remain. The same units,
beside the same other segments, give the same bytes. A segment is visible from its manifest on, as any unit: a
crash before it leaves files that the next attempt uses, or garbage.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import logging
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from data.keys import digest
from data.records import TABLES
from data.store import segments
from data.store.failpoints import failpoint
from data.store.manifest import Damaged, Manifest, Part
from data.store.segment_rows import Covered, PartWriter, write_rows
from data.store.segments import DROPPED, INDEX, MANIFESTS, ROWS, STAGE, VERSION, Segment, keys_of
from data.store.store import Store

# A segment up to so many times as large as what is new is made anew with it.
_FACTOR: Final = 4
# Units that are taken up at once: their manifests are held in memory.
_AT_ONCE: Final = 50_000
# One manifest is read with so many others.
_MANIFESTS_GROUP: Final = 1_000
_INDEX_GROUP: Final = 100_000
log = logging.getLogger("vidloop.store")


@dataclass(frozen=True, slots=True)
class Compacted:
    """What `compact` did.

    Attributes:
        units: how many were in no segment and are in one now.
        left: how many are in none: too few, or damaged.
        segments: how many segments there are.
    """

    units: int
    left: int
    segments: int


def compact(store: Store, least: int = 1) -> Compacted:
    """Bring the rows of units that are in no segment into segments.

    Rounds may run beside it. What it covers stays where it is.

    Args:
        store: the store.
        least: with fewer units than this in no segment nothing is done.

    Raises:
        Damaged: a segment was changed.
        StoreError: another process compacts this store, or it cannot be written.
    """
    done = 0
    with store.lock("compact", wait=False):
        while True:
            # From here on whoever discards a unit says so, and it is dropped from what is made meanwhile.
            with store.lock(segments.LOCK):
                _forget_notes(store)
                segments.note_drops(store)
            units, damaged = _tail(store)
            if len(units) < max(least, 1):
                break
            try:
                plan = _plan(store, units)
                parts, info = _write(store, plan)
            except Damaged:
                if not _noted(store):
                    raise
                continue  # a unit was discarded meanwhile, and its files with it
            with store.lock(segments.LOCK):
                for key in _noted(store):
                    segments.drop_from(store, plan.covered.key, key)
                failpoint("compact.before_manifest")
                store.commit(STAGE, plan.question, {}, info=info, written=parts)
            failpoint("compact.after_manifest")
            store.clear_scratch(plan.covered.key)
            done += len(units)
            if len(units) < _AT_ONCE:  # what a round committed meanwhile is for the next time
                units = []
                break
        with store.lock(segments.LOCK):
            _forget_notes(store)
        return Compacted(done, damaged + len(units), len(segments.live(store)))


@dataclass(frozen=True, slots=True)
class _Plan:
    """A segment to be made: its question, what it covers, and its index without the manifests' bytes."""

    question: dict[str, Any]
    covered: Covered
    index: pa.Table


def _notes(store: Store) -> list[Manifest]:
    return [one for one in store.manifests(DROPPED) if not one.question["segment"]]


def _noted(store: Store) -> list[str]:
    """Units that were discarded since `segments.note_drops`."""
    return [key for one in _notes(store) if (key := one.question["unit"])]


def _forget_notes(store: Store) -> None:
    for one in _notes(store):
        store.forget(one.key)


def _tail(store: Store) -> tuple[list[Manifest], int]:
    """Units of no segment by key, as many as are taken up at once, and how many were damaged among them."""
    found: list[Manifest] = []
    damaged = 0
    for path in segments.tail(store):
        try:
            manifest = store.manifest_at(path)
            wrong = next((why for part in manifest.parts if (why := store.fault(part))), None)
        except Damaged as error:
            wrong = error.what
        if wrong is None:
            found.append(manifest)
        else:
            damaged += 1
            log.warning("left out of segments: %s", wrong)
        if len(found) == _AT_ONCE:
            break
    return found, damaged


def _plan(store: Store, units: Sequence[Manifest]) -> _Plan:
    size = len(units)
    merged: list[Segment] = []
    beside = segments.live(store)
    while beside and beside[-1].alive <= _FACTOR * size:
        merged.append(beside.pop())
        size += merged[-1].alive
    index = pa.concat_tables(
        [_index_of_units(units), *(_index_of_segment(one) for one in merged)], promote_options="default"
    )
    index = index.sort_by("key").select(
        ["key", "stage", "digest", *(ROWS + table for table in TABLES if ROWS + table in index.column_names)]
    )
    listed = hashlib.sha256()
    for key, of in zip(index.column("key").to_pylist(), index.column("digest").to_pylist(), strict=True):
        listed.update(f"{key} {of}\n".encode())
    question: dict[str, Any] = {
        "stage": STAGE,
        "version": VERSION,
        "units": listed.hexdigest(),
        "beside": sorted(one.manifest.key for one in beside),
        "edition": 0,
    }
    # One whose units were dropped, and made again as they were, is another one.
    while store.manifest(digest(question)) is not None:
        question["edition"] += 1
    keys = keys_of(index.column("key").to_pylist())
    places = np.searchsorted(keys, keys_of(unit.key for unit in units))
    covered = Covered(
        digest(question),
        list(zip(units, places.tolist(), strict=True)),
        [(one, np.where(one.dead, -1, np.searchsorted(keys, one.index.keys))) for one in merged],
        beside,
    )
    return _Plan(question, covered, index)


def _index_of_units(units: Sequence[Manifest]) -> pa.Table:
    named = {
        "key": [unit.key for unit in units],
        "stage": [unit.stage for unit in units],
        "digest": [unit.digest for unit in units],
    }
    for table in TABLES:
        parts = [unit.part(table) for unit in units]
        if any(part is not None for part in parts):
            rows = [None if part is None else part.rows for part in parts]
            named[ROWS + table] = pa.array(rows, pa.int64())
    return pa.table(named)


def _index_of_segment(segment: Segment) -> pa.Table:
    index = segment.index
    named = {"key": index.keys.astype(str), "stage": index.stages, "digest": index.digests}
    for table, rows in index.rows.items():
        named[ROWS + table] = pa.array(rows, mask=rows < 0)
    return pa.table(named).filter(pa.array(~segment.dead))


def _write(store: Store, plan: _Plan) -> tuple[list[Part], dict[str, Any]]:
    covered = plan.covered
    for segment, _ in covered.merged:
        for part in segment.manifest.parts:
            wrong = store.fault(part)
            if wrong is not None:
                raise Damaged(f"{store.url}: {wrong}", store.remedy)
    writer = PartWriter(store, covered.key, INDEX, plan.index.schema, _INDEX_GROUP)
    writer.add(plan.index)
    parts = writer.close()
    schema = pa.schema([pa.field("manifest", pa.binary(), nullable=False)])
    writer = PartWriter(store, covered.key, MANIFESTS, schema, _MANIFESTS_GROUP)
    units = _manifests(store, covered)
    while some := list(itertools.islice(units, _MANIFESTS_GROUP)):
        writer.add(pa.table([pa.array(some, pa.binary())], schema=schema))
    parts += writer.close()
    overlaps: dict[str, list[str]] = {}
    for table in TABLES:
        if ROWS + table in plan.index.column_names:
            written, shared = write_rows(store, covered, table)
            parts += written
            if shared:
                overlaps[table] = sorted(shared)
    return parts, {"units": plan.index.num_rows, "overlaps": overlaps}


def _manifests(store: Store, covered: Covered) -> Iterator[bytes]:
    """The bytes of all manifests, in the order of the index."""
    tail = ((place, unit.to_bytes()) for unit, place in covered.tail)
    merged = (
        zip(
            places[places >= 0].tolist(),
            segments.manifest_bytes(store, one, np.flatnonzero(places >= 0)),
            strict=True,
        )
        for one, places in covered.merged
    )
    for _, data in heapq.merge(tail, *merged, key=operator.itemgetter(0)):
        yield data
