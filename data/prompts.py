"""Prompts: a named set of the physics world, the one for real models, or a file of your own.

Files: `.txt` (one prompt a line), `.jsonl`, `.csv` and `.parquet` (a column `text` or `prompt`; `id`,
`category`, `template`, `split` and `laws` if you like). Every fault is reported with its file and line.
"""

from __future__ import annotations

import csv
import functools
import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from data.errors import ConfigError, DataError
from data.plugins import plugins
from data.records import Prompt, prompt_id
from data.resources import find

# Everyday objects and hands, in five categories; no template is in both.
REAL: Final = ("real-train", "real-heldout")
_REAL_FOLDER: Final = Path(__file__).parent / "real_prompts"
MAX_CHARS: Final = 2000
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_LAW: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_LABEL: Final = re.compile(r"[^\x00-\x1f\x7f]{0,200}")
_TEXTS: Final = ("text", "prompt")


@dataclass(frozen=True)
class PromptSets:
    """Prompt sets that a package brings, by an entry point of group `vidloop.prompts`.

    Attributes:
        names: what recipes call them.
        load: the prompts of one of them, in their order.
        laws: as `load_laws`; a set that says nothing of laws has none.
    """

    names: tuple[str, ...]
    load: Callable[[str], list[Prompt]]
    laws: Callable[[str], dict[str, tuple[str, ...]]] = lambda name: {}


@functools.cache
def prompt_sets() -> Mapping[str, PromptSets]:
    """Every prompt set that has a name: ours, and those of plug-ins.

    Raises ConfigError: a plug-in cannot be loaded, brings no sets, or one whose name is taken.
    """
    ours = PromptSets(REAL, lambda name: _read(_real(name)), lambda name: _laws_in(_real(name)))
    found = dict.fromkeys(REAL, ours)
    for plugin in plugins("vidloop.prompts").values():
        brought = plugin.load()
        if not isinstance(brought, PromptSets):
            raise ConfigError(f"plug-in {plugin.name!r} of {plugin.source}: {plugin.target} is no PromptSets")
        for name in brought.names:
            if name in found:
                raise ConfigError(
                    f"plug-in {plugin.name!r} of {plugin.source} brings a prompt set {name!r}, which "
                    "there is already: uninstall one of them"
                )
            found[name] = brought
    return found


def load_prompts(name_or_path: str | Path) -> list[Prompt]:
    """Prompts of one of `prompt_sets()` or of a file (see `data.resources.find`), in their order.

    A prompt's id is a digest of its text; an id of your own is kept in `source` ("walks.jsonl#walk-7").
    Raises DataError: no such set or file, an unknown kind of file, or a faulty prompt: empty, longer than
    2,000 characters, with NUL or other control characters, a duplicate, an id that looks like a path.
    """
    name = str(name_or_path)
    known = prompt_sets().get(name)
    return _read(find(name)) if known is None else known.load(name)


def load_laws(name_or_path: str | Path) -> dict[str, tuple[str, ...]]:
    """Ids of the laws of nature that concern each prompt of a set or file, by the prompt's id.

    In a file they are its field `laws`: a list of ids, or a text of ids with blanks, commas or semicolons
    between them. Prompts without that field are left out; an empty list says that no law concerns it. What
    laws there are a judge's rubric says, not the file. Raises DataError as `load_prompts`, and for a
    field that is no list of ids.
    """
    name = str(name_or_path)
    known = prompt_sets().get(name)
    return _laws_in(find(name)) if known is None else known.laws(name)


def same_text(text: str) -> str:
    """What is equal for texts that ask for the same: NFC, without case, runs of white space as one blank."""
    return " ".join(unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold()).split())


def _real(name: str) -> Path:
    return _REAL_FOLDER / f"{name}.jsonl"


def _read(path: Path) -> list[Prompt]:
    return [prompt for prompt, _, _ in _records(path)]


def _laws_in(path: Path) -> dict[str, tuple[str, ...]]:
    try:
        stat = path.stat()
    except OSError:
        return _laws_at(path, 0, 0)  # says what is wrong with it
    return dict(_laws_at(path, stat.st_mtime_ns, stat.st_size))


@functools.lru_cache(maxsize=16)
def _laws_at(path: Path, changed_ns: int, size: int) -> dict[str, tuple[str, ...]]:
    """Cached by what the file system says of the file: a judge's version is asked for often."""
    found = {}
    for prompt, record, where in _records(path):
        laws = record.get("laws")
        if laws is None:
            continue
        if isinstance(laws, str):
            laws = re.findall(r"[^\s,;]+", laws)
        if not isinstance(laws, list) or not all(
            isinstance(one, str) and _LAW.fullmatch(one) for one in laws
        ):
            raise DataError(f"{where}: laws must be a list of ids of laws, such as [gravity, friction]")
        found[prompt.prompt_id] = tuple(laws)
    return found


def _records(path: Path) -> list[tuple[Prompt, Mapping[str, Any], str]]:
    """Every prompt of a file, with the record that it is of and where that stands."""
    readers = {".txt": _txt, ".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
    if not path.is_file():
        raise DataError(
            f"no prompts at {str(path)!r}: give a set ({', '.join(prompt_sets())}) or an existing file "
            f"({', '.join(readers)})"
        )
    if path.suffix.lower() not in readers:
        raise DataError(f"{path}: cannot read prompts from {path.suffix or 'a file without ending'!r}: "
                       f"use {', '.join(readers)}")  # fmt: skip
    prompts: list[tuple[Prompt, Mapping[str, Any], str]] = []
    texts: dict[str, int] = {}
    ids: dict[str, int] = {}
    try:
        for line, record in readers[path.suffix.lower()](path):
            where = f"{path}:{line}"
            prompt, own_id = _prompt(record, where, path.name)
            for seen, value, what in ((texts, prompt.text, "text"), (ids, own_id, "id")):
                if value and seen.setdefault(value, line) != line:
                    raise DataError(f"{where}: the same {what} as line {seen[value]}: remove one of them")
            prompts.append((prompt, record, where))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}): save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not prompts:
        raise DataError(f"{path}: holds no prompts")
    return prompts


def _fault(text: object) -> str:
    """What is wrong with a prompt's text, in words; "" if nothing is."""
    if not isinstance(text, str):
        return f"is {_kind(text)}, not a text"
    if not text.strip():
        return "is empty: write a text or remove it"
    if len(text) > MAX_CHARS:
        return f"has {len(text)} characters, at most {MAX_CHARS} are allowed"
    for position, character in enumerate(text):
        # Cc: control characters; Cs: halves of surrogate pairs, which UTF-8 cannot write.
        if unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t":
            return f"holds the control character U+{ord(character):04X} (at {position}): remove it"
    return ""


def _prompt(record: Mapping[str, Any], where: str, source: str) -> tuple[Prompt, str]:
    column = next((name for name in _TEXTS if name in record), None)
    if column is None:
        raise DataError(
            f"{where}: no field 'text' (or 'prompt'): found {', '.join(map(str, record)) or 'nothing'}"
        )
    text = record[column]
    if isinstance(text, str):
        text = text.strip(" \t\r\n")  # str.strip() alone would also take some control characters
    if fault := _fault(text):
        raise DataError(f"{where}: the prompt {fault}")
    given = record.get("id", record.get("prompt_id"))
    own_id = "" if given is None else str(given)
    if given is not None and (not _ID.fullmatch(own_id) or ".." in own_id):
        raise DataError(
            f"{where}: the id {own_id[:80]!r} is not a plain name: use letters, digits and . _ : -"
        )
    prompt = Prompt(
        prompt_id=prompt_id(text),
        text=text,
        category=_label(record, "category", where),
        template=_label(record, "template", where),
        split=_label(record, "split", where) or "custom",
        source=f"{source}#{own_id}" if own_id else source,
    )
    return prompt, own_id


def _label(record: Mapping[str, Any], name: str, where: str) -> str:
    value = record.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or not _LABEL.fullmatch(value) or not value.isprintable():
        raise DataError(f"{where}: {name} must be a short text without control characters")
    return value


def _txt(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    # Split at "\n" only: str.splitlines would also split at control characters and hide them.
    lines = path.read_text(encoding="utf-8-sig").split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    for number, line in enumerate(lines, 1):
        yield number, {"text": line.removesuffix("\r")}


def _jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, record in _txt(path):
        try:
            value = json.loads(record["text"])
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}:{number}: not JSON: {error}") from error
        if not isinstance(value, dict):
            raise DataError(f'{path}:{number}: {_kind(value)}, not an object such as {{"text": "..."}}')
        yield number, value


def _csv(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for record in reader:
                if None in record or None in record.values():
                    raise DataError(f"{path}:{reader.line_num}: not as many fields as the header has")
                yield reader.line_num, {key: value for key, value in record.items() if value or key in _TEXTS}
        except csv.Error as error:
            raise DataError(f"{path}:{reader.line_num}: not CSV: {error}") from error


def _parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        records = pq.read_table(path).to_pylist()
    except pa.ArrowException as error:
        raise DataError(f"{path}: not a Parquet file: {error}") from error
    yield from enumerate(records, 1)


def _kind(value: object) -> str:
    names = {type(None): "null", bool: "a truth value", int: "a number", float: "a number", list: "a list"}
    return names.get(type(value), "an object" if isinstance(value, dict) else "a value")
