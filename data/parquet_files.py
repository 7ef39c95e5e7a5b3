"""Parquet files that somebody brings: a kilobyte can claim millions of rows, or gigabytes of one text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from data.errors import DataError

# Rows that differ take a byte each, whatever packs them; ours have a text or an id of their own.
_FEW_ROWS: Final = 10_000
# Texts that people write are packed to a tenth, some tables to a hundredth.
_PACKED: Final = 200
_FEW_BYTES: Final = 64 << 20
# Few, because a batch may hold one long text as often as it has rows.
_BATCH: Final = 64


def read_columns(path: Path, wanted: Callable[[str], bool]) -> list[tuple[str, list[Any]]]:
    """Columns of a Parquet file as Python values, in their order; several may have one name.

    Args:
        path: of the file.
        wanted: by the name, whether a column is to be read. Of others each value is True: it is there.

    Raises:
        DataError: it is no Parquet file, or damaged, or holds more rows or bytes than a table of texts can
            that is packed to its size.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    rows = held = 0
    try:
        size = path.stat().st_size
        # A file, not `read_table`: that refuses two columns of one name, whoever needs them.
        with parquet.ParquetFile(path) as file:
            found: list[tuple[str, list[Any]]] = [(field.name, []) for field in file.schema_arrow]
            for batch in file.iter_batches(_BATCH, use_threads=False):
                rows, held = rows + len(batch), held + batch.nbytes
                if rows > _FEW_ROWS + size or held > _FEW_BYTES + _PACKED * size:
                    raise DataError(
                        f"{path}: {rows:,} rows or more, {held:,} bytes, in a file of {size:,}: no table "
                        "of texts, each its own. Write it again with the rows that are meant"
                    )
                for (name, values), column in zip(found, batch.columns, strict=True):
                    values += column.to_pylist() if wanted(name) else [True] * len(column)
    # Beside Arrow's own: names and texts that are not UTF-8, times and zones that there are not.
    except (pa.ArrowException, ArithmeticError, LookupError, OSError, ValueError) as error:
        raise DataError(f"{path}: not a Parquet file, or a damaged one: {error}") from error
    return found
