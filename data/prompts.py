"""Prompts: a named set of the physics world, the one for real models, or a file of your own.

Files: `.txt` (one prompt a line), `.jsonl`, `.csv` and `.parquet` (a column `text` or `prompt`; `id`,
`category`, `template`, `split` and `laws` if you like; `data.prompt_files` reads their rows). Every fault is
reported with its file and line.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from data.errors import ConfigError, DataError
from data.plugins import plugins
from data.prompt_files import IDS, READERS, TEXTS, Record, is_missing, kind, read_rows
from data.records import Prompt, prompt_id
from data.resources import find

# Everyday objects and hands, in five categories; no template is in both.
REAL: Final = ("real-train", "real-heldout")
_REAL_FOLDER: Final = Path(__file__).parent / "real_prompts"
MAX_CHARS: Final = 2000
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_LAW: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_LABEL: Final = re.compile(r"[^\x00-\x1f\x7f]{0,200}")
# Characters that no reader sees and that change none beside them, unlike the joiners U+200C and U+200D: zero
# width spaces, word joiner, byte order mark, soft hyphen, marks of direction.
_UNSEEN: Final = dict.fromkeys(map(ord, "\u200b\u2060\ufeff\u00ad\u200e\u200f\u180e"))
# Letters and signs whose glyph is blank: fillers of Hangul, the empty pattern of Braille.
_BLANK: Final = frozenset("\u115f\u1160\u3164\uffa0\u2800")


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
    2,000 characters, with NUL or other control characters, nothing that a reader sees, a duplicate (the same
    to a reader), an id that looks like a path, or what `data.prompt_files` says.
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
    """What is equal for texts that ask for the same: `_as_read`, without case."""
    return _as_read(unicodedata.normalize("NFC", text).casefold())


def _as_read(text: str) -> str:
    """What is equal for texts that look the same: NFC, runs of white space as one blank, nothing unseen."""
    return " ".join(unicodedata.normalize("NFC", text.translate(_UNSEEN)).split())


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


def _records(path: Path) -> list[tuple[Prompt, Record, str]]:
    """Every prompt of a file, with the record that it is of and where that stands."""
    if not path.is_file():
        raise DataError(
            f"no prompts at {str(path)!r}: give a set ({', '.join(prompt_sets())}) or an existing file "
            f"({', '.join(READERS)})"
        )
    if path.suffix.lower() not in READERS:
        raise DataError(f"{path}: cannot read prompts from {path.suffix or 'a file without ending'!r}: "
                       f"use {', '.join(READERS)}")  # fmt: skip
    rows = read_rows(path)
    if not rows:
        raise DataError(f"{path}: holds no prompts")
    prompts: list[tuple[Prompt, Record, str]] = []
    texts: dict[str, tuple[int, str]] = {}
    ids: dict[str, int] = {}
    for line, record in rows:
        where = f"{path}:{line}"
        prompt, own_id = prompt_of(record, where, path.name)
        first, text = texts.setdefault(_as_read(prompt.text), (line, prompt.text))
        if first != line:
            how = "" if text == prompt.text else " to a reader (what differs looks the same)"
            raise DataError(f"{where}: the same text as line {first}{how}: remove one of them")
        if own_id and (first := ids.setdefault(own_id, line)) != line:
            raise DataError(f"{where}: the same id as line {first}: give every prompt its own, or none")
        prompts.append((prompt, record, where))
    return prompts


def _fault(text: object) -> str:
    """What is wrong with a prompt's text, in words; "" if nothing is."""
    if not isinstance(text, str):
        return f"is {kind(text)}, not a text"
    if not text.strip():
        return "is empty: write a text or remove it"
    if is_missing(text):
        return f"is {text!r}, as tables write a text that is missing: write a text or remove it"
    if len(text) > MAX_CHARS:
        return f"has {len(text)} characters, at most {MAX_CHARS} are allowed"
    for position, character in enumerate(text):
        # Cc: control characters; Cs: halves of surrogate pairs, which UTF-8 cannot write.
        if unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t":
            return f"holds the control character U+{ord(character):04X} (at {position}): remove it"
    if all(map(_is_blank, text)):
        codes = ", ".join(f"U+{ord(character):04X}" for character in dict.fromkeys(text[:3]))
        return f"is empty to a reader (it holds {codes}): write a text or remove it"
    return ""


def _is_blank(character: str) -> bool:
    """Whether a character alone shows nothing: white space, format characters, marks without a letter."""
    return character.isspace() or character in _BLANK or unicodedata.category(character) in ("Cf", "Mn")


def prompt_of(record: Record, where: str, source: str) -> tuple[Prompt, str]:
    """The prompt of a record, and the id that it has there ("" for none). Raises DataError as `load_prompts`.

    Args:
        where: stands in front of what is wrong.
        source: name of the file.
    """
    column = next((name for name in TEXTS if name in record), None)
    if column is None:
        raise DataError(
            f"{where}: no field 'text' (or 'prompt'): found {', '.join(map(str, record)) or 'nothing'}"
        )
    text = record[column]
    if fault := _fault(text):
        raise DataError(f"{where}: the prompt {fault}")
    own_id = next((record[name] for name in IDS if name in record), "")
    if own_id and (not _ID.fullmatch(own_id) or ".." in own_id):
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


def _label(record: Record, name: str, where: str) -> str:
    value = record.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or not _LABEL.fullmatch(value) or not value.isprintable():
        raise DataError(f"{where}: {name} must be a short text without control characters")
    # Two spellings of one letter would be two categories that look the same.
    return unicodedata.normalize("NFC", value)
