"""`vidloop query`: SQL that somebody types."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

from data.queries import answer, connect
from tests.fuzz.target import Target
from tests.fuzz.targets.stores import store

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@cache
def views() -> DuckDBPyConnection:
    """The views of the small store; they are read anew for each query."""
    return connect(store(), memory_mb=300)


# Before the interpreter ends: DuckDB counts what is left then.
atexit.register(views.cache_clear)


def _query(data: bytes) -> None:
    # An argument of a command holds every byte but NUL.
    answer(views(), os.fsdecode(data.replace(b"\0", b"")), seconds=0.3)


def _queries() -> Iterator[bytes]:
    yield b"SELECT reward, avg(value) FROM scores JOIN clips USING (clip_id) GROUP BY ALL"
    yield b"DESCRIBE clips"
    yield b"WITH a AS (FROM scores_wide) SELECT * FROM a ORDER BY 1 LIMIT 3"
    yield b"SELECT * FROM read_text('/etc/passwd')"
    yield b"FROM range(10) t(x) SELECT x::VARCHAR, [x], {'a': x}, DATE '2026-11-30'"


_SQL = ("SELECT ", "FROM ", "range(", "100000000000", "repeat('a', ", "read_parquet(", "COPY ", "ATTACH ", "INSTALL ", "SET ",
        "PRAGMA ", "WITH RECURSIVE ", "UNION ALL ", "CROSS JOIN ", "generate_series(", "::INTERVAL", "list(", "map(",
        "scores", "clips", ";", "--", "/*", "$1", "?", "'\\x00'", "getenv('HOME')", "glob('/*')", "::BLOB", "::TIME",
        "::HUGEINT", "::DECIMAL(38,10)", "::TIMESTAMPTZ", "DATE '99999-01-01'", "sniff_csv(", "summarize ")  # fmt: skip
TARGETS = (Target("query", _query, _queries, words=_SQL, most=1024, share=0),)
