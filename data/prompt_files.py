"""Rows of prompt files and tables of clips (`.txt`, `.jsonl`, `.csv`, `.parquet`), as a person would read.

What programs leave in tables is taken for what it means, alike in every format: blanks around a name or a
value are none of it, a missing value (empty, null, NaN, "nan") is no value, a whole number is written
without ".0", lines of a cell end in LF. What could mean two things is refused with its line.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from data.errors import DataError
from data.parquet_files import read_columns

TEXTS: Final = ("text", "prompt")
IDS: Final = ("id", "prompt_id")
# `path`: of a clip's file, see `data.outside.table`.
_FIELDS: Final = frozenset((*TEXTS, *IDS, "category", "template", "split", "laws", "path"))
# How pandas, Python, JSON and SQL write a value that is missing, in their very letters: "none" is a person's.
_MISSING: Final = frozenset(("", "nan", "NaN", "NAN", "<NA>", "NaT", "None", "null", "NULL"))
# What may stand around a name or before a comment: where files were joined, a byte order mark too.
_AROUND: Final = " \t\r\n\u00a0\ufeff\u200b\u2060"
_COMMENT: Final = re.compile(r"#+(?:\s.*)?")
_LIKE_A_COMMENT: Final = re.compile(r"#|//|/\*|<!--|--|;")
_WHOLE: Final = re.compile(r"([0-9]+)(?:\.0+)?")
# From here on a float no longer holds every whole number: what it was before is not known.
_EXACT: Final = 2**53

Record = Mapping[str, Any]
"""The fields of a prompt by name; those that are missing are left out, but for `TEXTS`."""


def read_rows(path: Path) -> list[tuple[int, Record]]:
    """The records of an existing file of one of `READERS`, each with its line (Parquet: its row), from 1.

    An id is a text. Raises DataError: the file cannot be read or is not of its format, or a row is in doubt
    (two fields of one name, another number of cells than names, a line that could be a comment).
    """
    read = READERS[path.suffix.lower()]
    try:
        rows = [(line, _record(fields, f"{path}:{line}")) for line, fields in read(path)]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}): save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    # Whole numbers beside an empty cell are floats to pandas. Numbers such as 1.0, 1.1, 1.10 are left alone.
    names = [(record, name) for _, record in rows for name in IDS if name in record]
    if all(_WHOLE.fullmatch(record[name]) for record, name in names):
        for record, name in names:
            record[name] = _WHOLE.sub(r"\1", record[name])
    return list(rows)


def is_missing(value: object) -> bool:
    """Whether a value says that there is none: null, NaN, blanks, or a text such as "nan"."""
    if isinstance(value, str):
        return value.strip() in _MISSING
    return value is None or value != value  # NaN is the one number that differs from itself


def _record(fields: Iterable[tuple[str, Any]], where: str) -> dict[str, Any]:
    record: dict[str, Any] = {}
    seen = set()
    for given, value in fields:
        name = given.strip(_AROUND)
        if name in seen and name in _FIELDS:
            raise DataError(f"{where}: two fields are called {name!r}: rename or remove one of them")
        seen.add(name)
        if isinstance(value, str):
            # str.strip() alone would also take some control characters, and hide them.
            value = value.replace("\r\n", "\n").replace("\r", "\n").strip(" \t\n")
        if is_missing(value) and name not in TEXTS:
            continue
        if name in IDS:
            if isinstance(value, float) and not abs(value) < _EXACT:
                raise DataError(f"{where}: the id {value} is a number that has lost digits: write it as text")
            value = str(value)
        record[name] = value
    return record


def _txt(path: Path) -> Iterator[tuple[int, Iterable[tuple[str, Any]]]]:
    for number, line in _lines(path):
        text = line.strip(_AROUND)
        if _COMMENT.fullmatch(text):
            continue
        if sign := _LIKE_A_COMMENT.match(text):
            raise DataError(
                f"{path}:{number}: starts with {sign[0]!r}, as comments do: begin a comment with '# ', or "
                "write a prompt that starts so in a .jsonl file"
            )
        yield number, [("text", line)]


def _jsonl(path: Path) -> Iterator[tuple[int, Iterable[tuple[str, Any]]]]:
    for number, line in _lines(path):
        try:
            # Objects as tuples of pairs, so that a name that is there twice is seen: a dict keeps one.
            value = json.loads(line, object_pairs_hook=tuple)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{path}:{number}: not JSON: {error}: write one object a line, nothing else"
            ) from error
        if not isinstance(value, tuple):
            raise DataError(f'{path}:{number}: {kind(value)}, not an object such as {{"text": "..."}}')
        yield number, value


def _csv(path: Path) -> Iterator[tuple[int, Iterable[tuple[str, Any]]]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        # A blank after a comma would otherwise make the quotes that follow it part of the cell.
        reader = csv.reader(file, strict=True, skipinitialspace=True)
        names: list[str] = []
        try:
            for cells in reader:
                where = f"{path}:{reader.line_num}"
                if cells and _COMMENT.fullmatch(cells[0]):
                    raise DataError(
                        f"{where}: reads as a comment, which CSV does not have: remove the line, or write a "
                        "prompt that starts so in a .jsonl file"
                    )
                if not names:
                    names = cells
                elif cells and len(cells) != len(names):
                    raise DataError(
                        f"{where}: not as many fields as the header has ({len(cells)}, not {len(names)}): "
                        "put a text with commas in double quotes"
                    )
                elif cells:
                    yield reader.line_num, zip(names, cells, strict=True)
        except csv.Error as error:
            raise DataError(
                f"{path}:{reader.line_num}: not CSV: {error}: a cell in double quotes ends with one, "
                'straight before the comma, and has "" for each inside'
            ) from error


def _parquet(path: Path) -> Iterator[tuple[int, Iterable[tuple[str, Any]]]]:
    # By column, not as dicts: of two columns of one name a dict keeps one.
    columns = read_columns(path, lambda name: name.strip(_AROUND) in _FIELDS)
    names = [name for name, _ in columns]
    for number, values in enumerate(zip(*(values for _, values in columns), strict=True), 1):
        yield number, zip(names, values, strict=True)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    # Split at "\n" only: str.splitlines would also split at control characters and hide them.
    lines = path.read_text(encoding="utf-8-sig").split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    yield from enumerate(lines, 1)


READERS: Final[Mapping[str, Callable[[Path], Iterator[tuple[int, Iterable[tuple[str, Any]]]]]]] = {
    ".txt": _txt,
    ".jsonl": _jsonl,
    ".csv": _csv,
    ".parquet": _parquet,
}
"""By the file's ending: each row's line and its fields, in their order."""


def kind(value: object) -> str:
    """What a value is, in words."""
    if value != value:
        return "NaN"
    names = {type(None): "null", bool: "a truth value", int: "a number", float: "a number", list: "a list"}
    return names.get(type(value), "an object" if isinstance(value, dict | tuple) else "a value")
