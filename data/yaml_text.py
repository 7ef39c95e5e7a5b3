"""YAML as people write recipes, studies and rubrics: safe, bounded, and with the numbers of YAML 1.2.

    1e-4, 012, 0o14, 0x0c     numbers: 0.0001, 12, 12, 12
    1:30, 1_000, 2026-11-30   texts; in YAML 1.1 they are 90, 1000 and a date
    yes, no, on, off          true and false, as in YAML 1.1

A key is always the text that stands there; one that is given twice is an error. Anchors and aliases may be
used; what an alias stands for counts as often as it is used. There are no merge keys, as in YAML 1.2.
"""

from __future__ import annotations

import os
import re
import select
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any, Final

import yaml
from yaml.reader import Reader

from data.errors import ConfigError

DEPTH: Final = 50
"""So many parts may lie inside one another; a recipe has six at most."""
MOST: Final = 256 * 1024
"""So many bytes a file may have, and characters with every alias written out: 10,000 ids of prompts fit."""
# So many characters stand around a value: a dash, a blank and a line's end, say.
_MARKS: Final = 3
# So many characters a whole number may have. Nothing counts beyond 64 bits, which are 20 digits.
_DIGITS: Final = 40
_TAG: Final = "tag:yaml.org,2002:"
_BOOLS: Final = ("yes", "no", "true", "false", "on", "off")
# Core schema of YAML 1.2.2, section 10.3.2, but for true and false; (tag, pattern, first characters)
_PLAIN: Final = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    (
        "bool",
        "|".join(one for word in _BOOLS for one in (word, word.capitalize(), word.upper())),
        list("yYnNtTfFoO"),
    ),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
)
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # PyYAML may be built without its quick parser


class _Loader(_Base):  # type: ignore[misc]  # one of two classes of PyYAML
    """The scalars, lists and mappings of JSON; every other tag is an error."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (of PyYAML, which fills it by class)
    yaml_constructors = {  # noqa: RUF012
        tag: construct
        for tag, construct in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.removeprefix(_TAG) in ("null", "bool", "float", "str", "seq")
    }

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (AttributeError, KeyError, TypeError, ValueError):  # as in: !!float x
            kind = node.tag.removeprefix(_TAG)
            raise yaml.MarkedYAMLError(problem=f"this is no {kind}", problem_mark=node.start_mark) from None


for _name, _pattern, _first in _PLAIN:
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(rf"^(?:{_pattern})$"), _first)


def _int(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    if len(text) > _DIGITS:
        raise yaml.MarkedYAMLError(
            problem=f"a whole number of {len(text)} characters, at most {_DIGITS} can be read",
            problem_mark=node.start_mark,
        )
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    for key, _ in node.value:
        if key.tag.removeprefix(_TAG) in ("null", "bool", "int", "float"):
            key.tag = f"{_TAG}str"
    keys = set()
    for key in (loader.construct_object(key) for key, _ in node.value):
        if not isinstance(key, Hashable):
            continue  # it is told below that this is no key
        if key in keys:
            raise yaml.MarkedYAMLError(
                problem=f"the key {str(key)[:80]!r} is given twice", problem_mark=node.start_mark
            )
        keys.add(key)
    found: dict[Any, Any] = loader.construct_mapping(node, deep=True)
    return found


_Loader.add_constructor(f"{_TAG}int", _int)
_Loader.add_constructor(f"{_TAG}map", _mapping)


def read_yaml(file: Path, where: str) -> Any:
    """What a file says. No more of it is read than `MOST`, whatever it is: a device, or a pipe, has no end.

    Args:
        file: in UTF-8, with or without a byte order mark.
        where: names it in errors.

    Raises:
        OSError: the file cannot be read.
        ConfigError: as `parse_yaml`, or the file is longer than `MOST`, or not in UTF-8.
    """
    content = _read(file)
    if len(content) > MOST:
        raise ConfigError(f"{where}: larger than {MOST // 1024} KiB, which is no file of settings")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")
        line = content.count(b"\n", 0, error.start) + 1
        what = "it is in UTF-16" if wide else f"line {line} is not in UTF-8"
        raise ConfigError(f"{where}: it is not a text file in UTF-8 ({what}): save it as UTF-8") from None
    return parse_yaml(text, where)


def parse_yaml(text: str, where: str) -> Any:
    """What `text` says; `where` names it in errors.

    Raises:
        ConfigError: it is no YAML, it nests deeper than `DEPTH`, or it is longer than `MOST` with its
            aliases written out; says the line that is wrong.
    """
    check_text(text, where)
    try:
        _check_size(text)
        return yaml.load(text, Loader=_Loader)  # noqa: S506  (a SafeLoader that knows fewer tags)
    except yaml.MarkedYAMLError as error:
        line, began = (
            f"line {mark.line + 1}" if mark else "" for mark in (error.problem_mark, error.context_mark)
        )
        within = f"{error.context} ({began}), " if error.context and began else ""
        raise ConfigError(f"{where}{line and f', {line}'}: {within}{error.problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: {' '.join(str(error).split())}") from None


def check_text(text: str, where: str) -> None:
    """Refuse what is no text, or is too long to be a setting.

    Raises:
        ConfigError: longer than `MOST`, or with a character that YAML does not allow, such as U+0000, other
            control characters and halves of surrogate pairs.
    """
    if len(text) > MOST:
        raise ConfigError(f"{where}: longer than {MOST} characters, which is no setting")
    odd = Reader.NON_PRINTABLE.search(text)
    if odd:
        line = text.count("\n", 0, odd.start()) + 1
        raise ConfigError(
            f"{where}, line {line}: the character U+{ord(odd[0]):04X} is not allowed in a text file"
        )


def _read(file: Path) -> bytes:
    """At most one byte more than `MOST`."""
    content = b""
    # Without waiting, so that a pipe that nobody writes to is empty and does not stop the program for ever.
    with open(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0) as source:
        while len(content) <= MOST:
            piece = source.read(MOST + 1 - len(content))
            if piece is None:  # somebody is about to write
                select.select([source], [], [])
            elif piece:
                content += piece
            else:
                break
    return content


def _check_size(text: str) -> None:
    """Depth, and length with each alias as long as what it stands for, before anything is made of either."""
    sizes: dict[str, int] = {}
    parts: list[tuple[str | None, int]] = []  # those that are open: (anchor, length of the whole before it)
    whole = 0
    events: Iterator[Any] = yaml.parse(text, Loader=_Loader)
    for event in events:
        wrong = ""
        if isinstance(event, yaml.CollectionStartEvent):
            parts.append((event.anchor, whole))
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = parts.pop()
            if anchor is not None:
                sizes[anchor] = whole - before + _MARKS
        elif isinstance(event, yaml.ScalarEvent):
            whole += len(event.value)
            if event.anchor is not None:
                sizes[event.anchor] = len(event.value) + _MARKS
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor in (anchor for anchor, _ in parts):
                wrong = f"*{event.anchor} stands inside of what it stands for"
            whole += (
                sizes.get(str(event.anchor), _MARKS) - _MARKS
            )  # of one that is unknown the loader says so
        whole += _MARKS * isinstance(event, yaml.NodeEvent)
        if len(parts) > DEPTH:
            wrong = f"more than {DEPTH} parts inside one another"
        elif whole > MOST:
            wrong = f"longer than settings are ({MOST} characters), with every alias written out"
        if wrong:
            raise yaml.MarkedYAMLError(problem=wrong, problem_mark=event.start_mark)
