"""What is wrong with settings, in words: the key, what it may be, and for an unknown one the nearest."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from data.errors import ConfigError
from data.settings import key_of

Model = TypeVar("Model", bound=BaseModel)
# So much is shown of many errors, and of one about a long value: lines, and characters of a line.
_LINES: Final = 20
_WIDTH: Final = 1000


def nearest(word: str, known: Iterable[str]) -> str:
    """What an unknown word was most likely meant to be, as the end of a sentence."""
    names = list(known)
    close = difflib.get_close_matches(word, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(names) or 'none'}"


def validated(model: type[Model], given: object, where: str) -> Model:
    """`given` as `model`. Raises ConfigError, which says `where`, which key is wrong, and the nearest one."""
    try:
        return model.model_validate(given)
    except ValidationError as found:

        def line(item: Mapping[str, Any]) -> str:
            places = [str(place) for place in item["loc"]]
            said = reason(item) or unknown(model, places)
            return ": ".join(filter(None, (where, ".".join(places), said)))

        raise ConfigError(listed(found, line)) from None


def listed(found: ValidationError, line: Callable[[Mapping[str, Any]], str]) -> str:
    """What is wrong, a line each; of many the first ones, and how many more there are."""
    items = found.errors(include_url=False)
    more = [f"and {len(items) - _LINES} more"] if len(items) > _LINES else []
    lines = [line(item) for item in items[:_LINES]]
    return "\n".join([*(one if len(one) <= _WIDTH else f"{one[:_WIDTH]}..." for one in lines), *more])


def reason(item: Mapping[str, Any]) -> str:
    """What is wrong with a value; "" for a key that is unknown."""
    if item["type"] == "extra_forbidden":
        return ""
    if item["type"] == "missing":
        return "this key is required"
    message: str = item["msg"].removeprefix("Value error, ")
    if item["type"] == "string_type" and isinstance(item["input"], bool):
        message += " (YAML reads a bare yes or no as true or false: put it in quotes)"
    elif item["type"] == "string_type" and isinstance(item["input"], int | float):
        message += " (YAML reads bare digits as a number: put them in quotes)"
    return message if isinstance(item["input"], dict | BaseModel) else f"{message}, not {item['input']!r}"


def unknown(
    model: type[BaseModel],
    places: Sequence[str],
    inside: type[BaseModel] | None = None,
    also: Iterable[str] = (),
) -> str:
    """The known key that an unknown one most likely meant: in its own part first, then anywhere.

    Args:
        model: the whole.
        places: names that lead to the key, itself last.
        inside: the part that the key stands in, where the model's types do not tell.
        also: further keys of the whole.
    """
    part = inside or part_at(model, places[:-1])
    named = [key_of(part, name) for name in part.model_fields] if part else []
    own = [*named, *(also if not places[1:] else ())]
    prefix = ".".join(places[:-1])
    close = difflib.get_close_matches(places[-1], own, n=1, cutoff=0.6)
    if close:
        return f"unknown key; did you mean {f'{prefix}.{close[0]}' if prefix else close[0]}?"
    everywhere = _all_keys(model)
    same_name = [key for key in everywhere if key.rsplit(".", 1)[-1] == places[-1]]
    best = same_name or difflib.get_close_matches(".".join(places), everywhere, n=1, cutoff=0.5)
    if best:
        return f"unknown key; did you mean {best[0]}?"
    return f"unknown key; known here: {', '.join(own)}"


def part_at(model: type[BaseModel], places: Sequence[str]) -> type[BaseModel] | None:
    """The part at some places, each the name of a field, or of one of several parts; None: no such part."""
    steps = iter(places)
    for place in steps:
        field = model.model_fields.get(place)
        part = _model_in(field.annotation) if field else None
        if field is not None and get_origin(field.annotation) in (dict, list, tuple):
            next(steps, None)  # the name, or number, of one of several
        if part is None:
            return None
        model = part
    return model


def _model_in(kind: Any) -> type[BaseModel] | None:
    """The settings that a field of this type holds: itself, or those in a list, dict, tuple or union."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind
    return next((found for one in get_args(kind) if (found := _model_in(one))), None)


def _all_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, field in model.model_fields.items():
        keys.append(prefix + key_of(model, name))
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += _all_keys(field.annotation, f"{prefix}{name}.")
    return keys
