"""The SQL of a table's view: rows of many units in which those that several units hold appear once.

Files come in two kinds. Of *clean* ones it is known that no key stands in two of their rows (that are shown):
segments say so of themselves, and of one another. *Loose* ones are the rest: what is in no segment yet, and
the few rows of segments that others make doubtful. Loose ones are few, so all that costs is done with them.

Of several rows of a key the first is shown, in the order of all columns: which does not depend on chance, nor
on what lies in a segment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from data.records import TABLES

_TYPES: Final = {
    "string": "VARCHAR", "int64": "BIGINT", "double": "DOUBLE", "bool": "BOOLEAN",
    "list<item: string>": "VARCHAR[]", "list<element: string>": "VARCHAR[]",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rows:
    """Where the rows of one table are: SELECTs of its columns over files, clean and loose, see above."""

    table: str
    clean: tuple[str, ...] = ()
    loose: tuple[str, ...] = ()

    def once(self) -> str:
        """A SELECT of every key once, over nothing but files."""
        if not self.clean:
            return _first(self.table, self._all(self.loose)) if self.loose else _none(self.table)
        if not self.loose:
            return self._all(self.clean)
        loose = f"WITH loose AS MATERIALIZED ({self._all(self.loose)})"
        return f"{loose} {self._all([self._others('loose'), self.merged('loose')])}"

    def ordered(self) -> str:
        """A SELECT of the loose rows, in the order of their keys."""
        return f"SELECT {columns_of(self.table)} FROM ({self._all(self.loose)}) ORDER BY {key_of(self.table)}"

    def merged(self, loose: str) -> str:
        """A SELECT of every key once that stands in `loose`, a relation of the loose rows."""
        columns = columns_of(self.table)
        rows = f"SELECT {columns} FROM {loose}"
        if self.clean:
            same = f"({self._all(self.clean)}) SEMI JOIN {loose} USING ({key_of(self.table)})"
            rows = f"{rows} UNION ALL SELECT {columns} FROM {same}"
        return f"SELECT {columns} FROM ({_first(self.table, rows)})"

    def beside(self, merged: str, apart: bool) -> str:
        """A SELECT of every key once, where the relation `merged` holds what the method of this name selects.

        Args:
            merged: its name.
            apart: no clean row has a key of it.
        """
        rows = f"SELECT {columns_of(self.table)} FROM {merged}"
        if not self.clean:
            return rows
        return self._all([*(self.clean if apart else [self._others(merged)]), rows])

    def overlap(self, loose: str) -> str:
        """Whether a clean row has a key of the relation `loose`."""
        if not self.clean:
            return "SELECT false"
        key = key_of(self.table)
        same = f"({self._all(self.clean)}) SEMI JOIN {loose} USING ({key})"
        return f"SELECT count(*) > 0 FROM (SELECT {key} FROM {same})"

    def repeated(self, loose: str) -> str:
        """Whether a key stands twice in the relation `loose`."""
        key = key_of(self.table)
        return f"SELECT count(*) > 0 FROM (SELECT {key} FROM {loose} GROUP BY ALL HAVING count(*) > 1)"

    def _others(self, loose: str) -> str:
        """A SELECT of the clean rows whose keys do not stand in `loose`."""
        return (
            f"SELECT {columns_of(self.table)} FROM ({self._all(self.clean)}) ANTI JOIN {loose} "
            f"USING ({key_of(self.table)})"
        )

    def _all(self, selects: Sequence[str]) -> str:
        """A SELECT of the rows of all of them."""
        if len(selects) == 1:
            return selects[0]
        # Of a union DuckDB reads the first column where none is asked for (count(*)): one that costs nothing.
        every = " UNION ALL ".join(f"SELECT true, {columns_of(self.table)} FROM ({one})" for one in selects)
        return f"SELECT {columns_of(self.table)} FROM ({every})"


def select(table: str, source: Sequence[str] | str, where: str = "") -> str:
    """A SELECT of a table's columns over Parquet files, or of a relation that has them."""
    rows = name(source) if isinstance(source, str) else f"read_parquet({texts(source)})"
    return f"SELECT {columns_of(table)} FROM {rows}{where and f' WHERE {where}'}"


def columns_of(table: str) -> str:
    """The columns of a table, in their order."""
    return ", ".join(map(name, TABLES[table].schema.names))


def _first(table: str, rows: str) -> str:
    columns = columns_of(table)
    return f"SELECT DISTINCT ON ({key_of(table)}) {columns} FROM ({rows}) ORDER BY {columns}"


def _none(table: str) -> str:
    nothing = [f"NULL::{_TYPES[str(field.type)]} AS {name(field.name)}" for field in TABLES[table].schema]
    return f"SELECT {', '.join(nothing)} WHERE false"


def key_of(table: str) -> str:
    """The columns that name a row."""
    return ", ".join(map(name, TABLES[table].key))


# DuckDB takes no parameters in a view, so texts and names that come from rows or paths are quoted here.


def texts(values: Sequence[str]) -> str:
    """A list of texts."""
    return "[" + ", ".join(map(text, values)) + "]"


def text(value: str) -> str:
    """A text."""
    return "'" + value.replace("'", "''") + "'"


def name(value: str) -> str:
    """The name of a column or a view."""
    return '"' + value.replace('"', '""') + '"'
