"""Parts: one table of one unit as Parquet, in bytes that are the same for the same rows."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from data.records import TABLES


def encode(table: pa.Table) -> bytes:
    """The file of a table that `data.records.to_table` made."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=50_000, write_page_checksum=True)
    return bytes(sink.getvalue())


def decode(data: bytes, name: str, columns: Sequence[str] = ()) -> pa.Table:
    """The table, or the named columns of it; columns of a later version are left out.

    Raises ValueError: it is no table `name`.
    """
    schema = TABLES[name].schema
    wanted = pa.schema(map(schema.field, columns), schema.metadata) if columns else schema
    try:
        # `read_table` would look for partitions first, which takes longer than reading a small part.
        with pq.ParquetFile(pa.BufferReader(data)) as file:
            found = file.read(columns=wanted.names, use_threads=False)
        # The cast loads much, so only where it is needed.
        return found if found.schema == wanted else found.select(wanted.names).cast(wanted)
    except (pa.ArrowException, LookupError, OSError) as error:
        raise ValueError(str(error)) from error
