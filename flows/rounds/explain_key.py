"""Why a key is what it is: its question, and where it parts from the nearest one in the store."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from data.errors import ConfigError
from data.records import Input
from data.store import Manifest, Store
from tasks.context import RoundContext
from tasks.stages import plan
from tasks.units import OneAnswer, Unit

# Of inputs that differ so many are told, a line each.
_SHOWN = 8


def explain(context: RoundContext, key: str) -> list[str]:
    """Lines about `key`: a unit in the store, or one that the recipe would run.

    Raises:
        ConfigError: no unit has a key that begins so, or several have.
    """
    store = context.store
    held = {manifest.key: manifest for manifest in store.manifests()}
    planned = {
        name: (unit, question)
        for stage in plan(context)
        for unit, _ in stage.units
        for name, question in zip(unit.keys, unit.questions, strict=True)
    }
    found = sorted(name for name in {**held, **planned} if name.startswith(key))
    if not found or not key:
        raise ConfigError(
            f"no unit in {context.store.url} or in this recipe has a key that begins with {key!r}"
        )
    if len(found) > 1:
        some = ", ".join(name[:16] for name in found[:4])
        raise ConfigError(f"{len(found)} keys begin with {key!r}: {some}, ...; give more digits")
    name = found[0]
    if name in held:
        question, state = held[name].question, "in the store"
    else:
        question, state = planned[name][1], "not in the store: it would be computed"
    lines = [f"{name}", f"    stage {question['stage']}, {state}"]
    if name in planned:
        lines.append(f"    {planned[name][0].label} of this recipe")
    lines += [f"    {path}: {_short(value)}" for path, value in leaves(question)]
    others = [one for one in held.values() if one.key != name and one.stage == question["stage"]]
    if not others:
        return [*lines, f"The store holds no other unit of stage {question['stage']}."]
    apart = {one.key: differences(question, one.question) for one in others}
    least = min(map(len, apart.values()))
    read = _read_by(store, held.get(name), planned[name][0] if name in planned else None)
    inputs = {
        other.key: changed(read, _read_by(store, other)) for other in others if len(apart[other.key]) == least
    }
    nearest = min(inputs, key=lambda other: (len(inputs[other]), other))
    lines.append(f"Nearest in the store: {nearest}")
    lines += [f"    {path}: {_short(mine)} here, {_short(its)} there" for path, mine, its in apart[nearest]]
    told = inputs[nearest][:_SHOWN]
    lines += [f"    inputs, {place}: {mine} here, {its} there" for place, mine, its in told]
    left = len(inputs[nearest]) - len(told)
    return [*lines, f"    and {left} more inputs"] if left else lines


def leaves(value: Any, path: str = "", into_lists: bool = False) -> Iterator[tuple[str, Any]]:
    """Every value of a question with its path; lists whole, or item by item."""
    if isinstance(value, dict):
        for name in sorted(value):
            yield from leaves(value[name], f"{path}.{name}" if path else name, into_lists)
    elif into_lists and isinstance(value, list):
        for place, item in enumerate(value):
            yield from leaves(item, f"{path}[{place}]", into_lists)
    else:
        yield path, value


def differences(mine: Any, its: Any) -> list[tuple[str, Any, Any]]:
    """(path, here, there) of every value that differs; lists item by item."""
    left, right = dict(leaves(mine, into_lists=True)), dict(leaves(its, into_lists=True))
    absent = "nothing"
    return [
        (path, left.get(path, absent), right.get(path, absent))
        for path in sorted({*left, *right})
        if left.get(path, absent) != right.get(path, absent)
    ]


def changed(mine: Iterable[Input], its: Iterable[Input]) -> list[tuple[str, str, str]]:
    """(role and place, unit here, unit there) of every input that differs."""
    left, right = ({(one.role, one.place): one for one in some} for some in (mine, its))
    return [
        (f"{place[0]}[{place[1]}]", _named(left.get(place)), _named(right.get(place)))
        for place in sorted({*left, *right})
        if _answer(left.get(place)) != _answer(right.get(place))
    ]


def _read_by(store: Store, manifest: Manifest | None, unit: Unit | None = None) -> list[Input]:
    """The lists that a unit read, or would read; nothing where its question names all that it reads."""
    if isinstance(unit, OneAnswer):
        return unit.listed()
    return [] if manifest is None or manifest.part("inputs") is None else store.read(manifest.key, "inputs")


def _answer(one: Input | None) -> str | None:
    return None if one is None else one.digest


def _named(one: Input | None) -> str:
    return "nothing" if one is None else f"unit {one.key[:12]}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    if len(text) <= 100:
        return text
    return f"{len(value)} items, {text[:80]}..." if isinstance(value, list) else f"{text[:97]}..."
