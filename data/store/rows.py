"""The rows of units: from where they were written, or from segments."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import pyarrow as pa

from data.errors import StoreError
from data.records import TABLES
from data.store.covering import Covering
from data.store.manifest import Damaged, Media
from data.store.parts import decode
from data.store.segments import Units

# One unit is read quicker where it was written, more than these in a segment.
_FEW: Final = 64
# Units that are read from segments at once: their rows are held in memory.
_AT_ONCE: Final = 20_000


def batches(store: Units, keys: Iterable[str], table: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    """One table of units, or some columns of it, unit by unit.

    Raises Damaged: a unit is not there, or not whole.
    """
    rest = iter(keys)
    while some := list(itertools.islice(rest, _AT_ONCE)):
        asked = some if len(some) > _FEW else store.without_file(some)
        held = Covering(store, asked).rows(table, columns)
        for key in some:
            if key in held:
                yield held[key]
            else:
                yield from _one(store, key, table, columns)


def _one(store: Units, key: str, table: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    manifest = store.manifest(key)
    if manifest is None:
        raise Damaged(f"{store.backend.url} holds no unit {key}: run the command that made it again")
    if (part := manifest.part(table)) is not None:
        data = store.read_part(part)
        try:
            yield decode(data, table, columns)
        except ValueError as error:
            where = store.backend.where(part.path)
            raise Damaged(f"{where} is no table {table}: {error}", store.remedy) from error


def table_of(name: str, pieces: Iterable[pa.Table]) -> pa.Table:
    """A table made of pieces; there may be none."""
    return pa.concat_tables([TABLES[name].schema.empty_table(), *pieces])


def check_media(store: Units, tables: Mapping[str, pa.Table], media: Sequence[Media]) -> None:
    """See to it that rows name only files in `media`, and that these are there.

    Raises:
        ValueError: they name another one.
        StoreError: a file is not there.
    """
    for item in media:
        if store.fault(item, "size") is not None:
            where = store.backend.where(item.path)
            raise StoreError(f"{where} is not there, so it cannot be committed: run again")
    held = {item.path for item in media}
    for name, table in tables.items():
        for column in TABLES[name].media:
            named = set(table.column(column).to_pylist()) - {""}
            if not named <= held:
                raise ValueError(f"{name}.{column} names {min(named - held)}, which is not in `media`")
