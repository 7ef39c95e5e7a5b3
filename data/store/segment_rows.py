"""The rows of a segment: read from parts and other segments, put in order, and written in large files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.records import TABLES
from data.store.failpoints import failpoint
from data.store.manifest import Damaged, Manifest, Part
from data.store.segments import STAGE, Segment
from data.table_sql import columns_of, key_of, texts

if TYPE_CHECKING:
    import duckdb

    from data.store.store import Store

# A file is closed at the end of the row group that brings it to this size.
FILE_BYTES: Final = 128 << 20
GROUP_ROWS: Final = 50_000
_MEMORY: Final = "2GB"
# The columns of a table in a segment, beside its own; none of which begins with a line.
UNIT: Final = pa.field("_unit", pa.int32(), nullable=False)
SHOWN: Final = pa.field("_shown", pa.bool_(), nullable=False)


@dataclass(frozen=True, slots=True)
class Covered:
    """What a segment is made of.

    Attributes:
        key: the segment's.
        tail: units in no segment, with the place of each in the new index.
        merged: segments that it takes the place of, with [U] places of their units, -1 of those left out.
        beside: the other segments of the store.
    """

    key: str
    tail: Sequence[tuple[Manifest, int]]
    merged: Sequence[tuple[Segment, np.ndarray]]
    beside: Sequence[Segment]


class PartWriter:
    """Rows in, parts of a segment out: files of about `FILE_BYTES`, row groups of a number of rows."""

    def __init__(self, store: Store, key: str, name: str, schema: pa.Schema, group: int = GROUP_ROWS) -> None:
        self._store, self._key, self._name, self._schema, self._group = store, key, name, schema, group
        self._waiting = schema.empty_table()
        self._sink = pa.BufferOutputStream()
        self._writer: pq.ParquetWriter | None = None
        self._rows = 0
        self.parts: list[Part] = []

    def add(self, rows: pa.Table) -> None:
        """Take rows up. Raises StoreError: the store cannot be written."""
        self._waiting = pa.concat_tables([self._waiting, rows])
        while self._waiting.num_rows >= self._group:
            self._write(self._waiting.slice(0, self._group))
            self._waiting = self._waiting.slice(self._group)

    def close(self) -> list[Part]:
        """The parts, once all rows are in; one without rows, if there were none. Raises as `add`."""
        if self._waiting.num_rows or not (self.parts or self._writer):
            self._write(self._waiting)
        if self._writer is not None:
            self._end()
        return self.parts

    def _write(self, rows: pa.Table) -> None:
        if self._writer is None:
            self._sink, self._rows = pa.BufferOutputStream(), 0
            self._writer = pq.ParquetWriter(
                self._sink, self._schema, compression="zstd", write_page_checksum=True
            )
        self._writer.write_table(rows.combine_chunks(), row_group_size=self._group)
        self._rows += rows.num_rows
        if self._sink.tell() >= FILE_BYTES:
            self._end()

    def _end(self) -> None:
        assert self._writer is not None
        self._writer.close()
        data = self._sink.getvalue().to_pybytes()
        self.parts.append(self._store.write_part(STAGE, self._key, self._name, self._rows, data))
        self._writer = None
        failpoint("compact.after_file")


def write_rows(store: Store, covered: Covered, table: str) -> tuple[list[Part], list[str]]:
    """Write one table's rows of all units of a segment.

    Returns:
        The parts, and the keys of the segments beside it in which a key of its rows stands too.

    Raises:
        StoreError: the store cannot be written.
    """
    import duckdb

    spill = store.scratch(covered.key)
    try:
        with duckdb.connect(config={"memory_limit": _MEMORY, "temp_directory": str(spill)}) as con:
            con.execute(f"CREATE VIEW source AS {_source(store, con, covered, table)}")
            parts = _ordered(store, con, covered.key, table)
            others = [other for other in covered.beside if other.files(table)]
            return parts, [one.manifest.key for one in others if _share(con, store, table, parts, one)]
    except (duckdb.IOException, FileNotFoundError) as error:
        raise Damaged(f"{store.url}: {error}", store.remedy) from error


def _ordered(store: Store, con: duckdb.DuckDBPyConnection, segment: str, table: str) -> list[Part]:
    """Write the rows of the view `source`."""
    key, columns = key_of(table), columns_of(table)
    con.execute(
        f"CREATE TABLE twice AS SELECT h FROM (SELECT hash({key}) AS h FROM source) "
        "GROUP BY h HAVING count(*) > 1"
    )
    con.execute(
        "CREATE TABLE hidden AS SELECT _unit, _file, _row FROM (SELECT _unit, _file, _row, row_number() OVER "
        f"(PARTITION BY {key} ORDER BY {columns}, _unit, _file, _row) AS _nth FROM source "
        f"WHERE hash({key}) IN (FROM twice)) WHERE _nth > 1"
    )
    found = con.sql(
        f"SELECT _unit, hidden._row IS NULL AS _shown, {columns} FROM source "
        "LEFT JOIN hidden USING (_unit, _file, _row) ORDER BY _unit, _file, _row"
    )
    schema = pa.schema([UNIT, SHOWN, *TABLES[table].schema])
    writer = PartWriter(store, segment, table, schema)
    for batch in found.to_arrow_reader(GROUP_ROWS):
        writer.add(pa.Table.from_batches([batch]).cast(schema))
    return writer.close()


def _source(store: Store, con: duckdb.DuckDBPyConnection, covered: Covered, table: str) -> str:
    """A SELECT of (_unit, _file, _row) and the table's columns: the rows of a unit by file and row."""
    columns = columns_of(table)
    some = [(part, place) for unit, place in covered.tail if (part := unit.part(table)) is not None]
    files = [_path(store, part) for part, _ in some]
    named = pa.schema([pa.field("filename", pa.string()), UNIT])
    con.register("named", pa.table([files, [place for _, place in some]], schema=named))
    selects = []
    if some:
        # Many small files: opened once, and held.
        con.execute(
            f"CREATE TABLE tail AS SELECT _unit, 0 AS _file, file_row_number AS _row, {columns} "
            f"FROM read_parquet({texts(files)}, filename = true, file_row_number = true) "
            "JOIN named USING (filename)"
        )
        selects.append("FROM tail")
    for number, (segment, places) in enumerate(covered.merged):
        kept = np.flatnonzero(places >= 0)
        new = pa.table({"_old": kept.astype(np.int32), "_new": places[kept].astype(np.int32)})
        con.register(f"places_{number}", new)
        selects += [
            f"SELECT _new AS _unit, {file} AS _file, file_row_number AS _row, {columns} FROM read_parquet("
            f"{texts([_path(store, part)])}, file_row_number = true) JOIN places_{number} ON _unit = _old"
            for file, part in enumerate(segment.files(table))
        ]
    return " UNION ALL ".join(selects)


def _share(
    con: duckdb.DuckDBPyConnection, store: Store, table: str, parts: Iterable[Part], other: Segment
) -> bool:
    """Whether a key that is shown in the new files is shown in another segment."""
    key = key_of(table)
    new, old = (
        f"SELECT {key} FROM read_parquet({texts([_path(store, part) for part in some])}) WHERE _shown"
        for some in (parts, other.files(table))
    )
    found = con.execute(f"SELECT count(*) > 0 FROM (({old}) SEMI JOIN ({new}) USING ({key}))").fetchone()
    return found is not None and bool(found[0])


def _path(store: Store, part: Part) -> str:
    return str(store.backend.local(part.path))
