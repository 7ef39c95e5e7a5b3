"""Changes of JSON and YAML by their parts: bytes changed at random are no longer either, most of the time."""

from __future__ import annotations

import json
import random
from typing import Any, Final

import atheris
import yaml

from tests.fuzz.target import SEPARATOR

_PLACES: Final = 3000
# What a field least expects.
_ODD: Final = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**39, 0.5, -0.0, 1e308, float("nan"), float("inf"), "", " ",
    "nan", "..", "/", "\x00", "\ud800", "\u2028", "a" * 300, "é", [], {}, [[]], [None], {"": None}, [0] * 50, "1", "true",
)  # fmt: skip


def mutate(data: bytes, most: int, seed: int) -> bytes:
    """One to three changes of the tree, or of the bytes where it is none; every third time of the bytes."""
    rng = random.Random(seed)
    if rng.random() < 0.33:
        return bytes(atheris.Mutate(data, most))
    parts = data.split(SEPARATOR)
    place = rng.randrange(len(parts))
    try:
        tree = _read(parts[place])
        for _ in range(rng.randint(1, 3)):
            tree = _changed(tree, rng)
        # The ASCII of "\ud800" is JSON, and no UTF-8.
        parts[place] = json.dumps(tree, ensure_ascii=rng.random() < 0.8).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError, yaml.YAMLError, TypeError):
        return bytes(atheris.Mutate(data, most))
    whole = SEPARATOR.join(parts)
    return whole if len(whole) <= most else bytes(atheris.Mutate(data, most))


def _read(part: bytes) -> Any:
    try:
        return json.loads(part)
    except ValueError:
        return yaml.load(part, Loader=yaml.CSafeLoader)


def _changed(tree: Any, rng: random.Random) -> Any:
    """The tree with one of its parts removed, doubled, moved or replaced."""
    # Every place: the part that holds it, and its key or number there.
    places: list[tuple[Any, Any]] = []
    parts = [tree]
    while parts:
        part = parts.pop()
        inner = (
            list(part.items())
            if isinstance(part, dict)
            else list(enumerate(part))
            if isinstance(part, list)
            else []
        )
        places += [(part, key) for key, _ in inner]
        if len(places) > _PLACES:  # an alias of YAML may lie inside of what it stands for
            raise ValueError
        parts += [value for _, value in inner]
    if not places:
        return rng.choice(_ODD)
    part, key = rng.choice(places)
    other, from_there = rng.choice(places)
    match rng.randrange(8):
        case 0:
            del part[key]
        case 1 if isinstance(part, list):
            part.insert(key, part[key])
        case 1:
            part[rng.choice(("", "x", f"{key}_", str(key)[:-1], from_there))] = part[key]
        case 2:
            part[key] = json.loads(json.dumps(other[from_there], default=str))
        case 3:
            depth = rng.choice((1, 2, 60, 200, 1100))
            part[key] = _deep(part[key], depth, rng.random() < 0.5)
        case 4 if isinstance(part[key], str | int | float):
            part[key] = str(part[key]) if not isinstance(part[key], str) else len(part[key])
        case _:
            part[key] = rng.choice(_ODD)
    return tree


def _deep(value: Any, depth: int, lists: bool) -> Any:
    for _ in range(depth):
        value = [value] if lists else {"a": value}
    return value
