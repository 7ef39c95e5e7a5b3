"""The table of an imported set: which file shows which prompt."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from data.errors import DataError
from data.explain import nearest
from data.prompt_files import IDS, READERS, TEXTS, Record, kind, read_rows
from data.prompts import prompt_of
from data.records import Prompt

_ENDINGS: Final = tuple(ending for ending in READERS if ending != ".txt")
_COLUMNS: Final = ("path", *TEXTS, *IDS, "category")
# Faults that are told at once.
_TOLD: Final = 10


@dataclass(frozen=True)
class Entry:
    """A line of the table.

    Attributes:
        line: number of the line (Parquet: of the row), from 1.
        path: of the file, absolute or below the table's folder, as it is written there.
        prompt: what the clip shows.
    """

    line: int
    path: str
    prompt: Prompt


@dataclass(frozen=True)
class Table:
    """What `read_table` read.

    Attributes:
        file: the table's path.
        root: the folder that relative paths are below.
        entries: its lines, in their order; at least one.
    """

    file: Path
    root: Path
    entries: tuple[Entry, ...]


def read_table(path: Path, ignored: Sequence[str] = ()) -> Table:
    """The table at `path`, or the only one in that folder (.csv, .jsonl, .parquet).

    Columns: `path`, `text` or `prompt`; `id` and `category` if you like. Several lines may have one prompt.

    Args:
        path: a table, or a folder with one.
        ignored: further columns, which are not read.

    Raises:
        DataError: there is no table or more than one, it is not of its format, has no path or prompt in a
            line or a column that is not known, or names a file twice; with the lines, up to ten of them.
    """
    file = _the_table(path)
    rows = read_rows(file)
    if not rows:
        raise DataError(f"{file}: holds no lines")
    _check_columns(file, rows, ignored)
    entries: list[Entry] = []
    faults: list[str] = []
    lines: dict[str, int] = {}
    for line, record in rows:
        where = f"{file}:{line}"
        try:
            entry = Entry(line, _path(record, where), prompt_of(record, where, file.name)[0])
            first = lines.setdefault(os.path.normpath(entry.path), line)
            if first != line:
                raise DataError(f"{where}: names the file of line {first} again: remove one of them")
        except DataError as fault:
            faults.append(str(fault))
        else:
            entries.append(entry)
    if faults:
        more = f"\nand {len(faults) - _TOLD} more" if len(faults) > _TOLD else ""
        raise DataError("\n".join(faults[:_TOLD]) + more)
    return Table(file, file.parent, tuple(entries))


def _the_table(path: Path) -> Path:
    if path.is_dir():
        found = sorted(one for one in path.iterdir() if one.suffix.lower() in _ENDINGS)
        found = [one for one in found if one.is_file() and not one.is_symlink()]
        if len(found) != 1:
            held = f"{len(found)} tables ({', '.join(one.name for one in found[:3])}, ...)" if found else "no"
            raise DataError(
                f"{path}: holds {held + ': name one of them' if found else 'no table of prompts'}; it is a "
                f"file {' or '.join(_ENDINGS)} with columns path and prompt"
            )
        return found[0]
    if not path.is_file():
        raise DataError(f"no clips at {str(path)!r}: give a folder with a table of prompts, or the table")
    if path.suffix.lower() not in _ENDINGS:
        raise DataError(
            f"{path}: a table of clips is a file {', '.join(_ENDINGS)} with columns path and prompt"
        )
    return path


def _check_columns(file: Path, rows: Sequence[tuple[int, Record]], ignored: Sequence[str]) -> None:
    first: dict[str, int] = {}
    for line, record in rows:
        for name in record:
            first.setdefault(name, line)
    for name, line in first.items():
        if name not in (*_COLUMNS, *ignored):
            raise DataError(
                f"{file}:{line}: the column {name!r} is not known{nearest(name, _COLUMNS)}. A table of clips "
                f"has {', '.join(_COLUMNS)}; say --ignore {name} if it is of no use here"
            )


def _path(record: Record, where: str) -> str:
    path = record.get("path")
    if path is None:
        raise DataError(f"{where}: no path: name the clip's file in the column 'path'")
    if not isinstance(path, str):
        raise DataError(f"{where}: the path is {kind(path)}, not a text")
    return path
