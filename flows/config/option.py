"""What `--set KEY=TEXT` says: the text to the letter where the key takes texts, else what it is in YAML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from data.settings import key_of
from data.yaml_text import check_text, parse_yaml
from flows.config import rewards
from flows.config.log import logger
from flows.config.recipe import Recipe

# How YAML writes that there is no value.
_NULLS: Final = ("", "~", "null", "Null", "NULL")


def value_of(
    text: str, where: str, model: type[BaseModel], names: Sequence[str], tree: Mapping[str, Any]
) -> Any:
    """The value that `text` gives a key.

    A key that takes texts alone (words to choose from are texts too) has `text` itself, whatever is in it.
    One that may also be left out (null) has no value where `text` is null, ~ or nothing; one that takes a
    text or a part (`policy`) has the part where `text` begins with a brace.

    Args:
        text: what stands behind the equals sign.
        where: names the option in errors.
        model: of the file that is changed.
        names: those that lead to the key.
        tree: what the file says, for the kinds of its rewards.

    Raises:
        ConfigError: the text is not allowed in a file, or, where YAML is expected, is no YAML.
    """
    kinds = list(_members(_type_at(model, names, tree)))
    others = [kind for kind in kinds if not _takes_text(kind) and kind is not NoneType]
    a_part = all(_model(kind) for kind in others) and not (others and text.lstrip().startswith("{"))
    if not any(map(_takes_text, kinds)) or not a_part:
        return parse_yaml(text, where)
    if NoneType in kinds and text in _NULLS:
        return None
    check_text(text, where)
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        logger().warning("%s: the quotes are part of the text; without them it is what stands inside", where)
    return text


def _type_at(model: type[BaseModel], names: Sequence[str], tree: Mapping[str, Any]) -> Any:
    """Annotation of what stands at `names`; None: there is no such key, or it takes anything."""
    fields = {key_of(model, name): field.annotation for name, field in model.model_fields.items()}
    first, *rest = names
    if model is Recipe and (first not in fields or (first == rewards.REWARDS and rest)):
        place = names if first in fields else [rewards.REWARDS, *names]
        settings = rewards.settings_at(tree, place[:2])
        return _type_at(settings, place[2:], tree) if settings is not None and place[2:] else None
    kind = fields.get(first)
    while rest:
        part = next(filter(None, map(_model, _members(kind))), None)
        if part is not None:
            return _type_at(part, rest, tree)
        mapping = next((get_args(one) for one in _members(kind) if get_origin(one) is dict), None)
        if mapping is None:
            return None
        if mapping[1] is Any:  # a study's changes of its recipe
            return _type_at(Recipe, rest, {})
        kind, rest = mapping[1], rest[1:]
    return kind


def _members(kind: Any) -> Iterator[Any]:
    """The kinds of a union, without what is annotated."""
    if get_origin(kind) is Annotated:
        yield from _members(get_args(kind)[0])
    elif get_origin(kind) in (Union, UnionType):
        for one in get_args(kind):
            yield from _members(one)
    else:
        yield kind


def _takes_text(kind: Any) -> bool:
    return kind is str or (
        get_origin(kind) is Literal and all(isinstance(one, str) for one in get_args(kind))
    )


def _model(kind: Any) -> type[BaseModel] | None:
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None
