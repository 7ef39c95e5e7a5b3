"""Reading a recipe: YAML file + `--set a.b=c`, with errors that name file, key and nearest key."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from data.errors import ConfigError
from data.resources import find, folder
from data.yaml_text import parse_yaml
from flows.config.recipe import Recipe

# Environment variable: folders with more recipes for the run forms, as in PATH.
RECIPES = "VIDLOOP_RECIPES"
# How the names of studies' files begin.
_STUDY = "study-"

Model = TypeVar("Model", bound=BaseModel)


def load_recipe(path: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in `path` with each `a.b=c` of `overrides` put in its place.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or says something a recipe does not know or allow.
    """
    return check(Recipe, read_tree(path, overrides), f"recipe {path}", overrides)


def read_tree(path: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """What a YAML file of keys and values says, with the overrides in their places; nothing is checked.

    Raises:
        ConfigError: the file cannot be read, or is not YAML, or an override does not fit it.
    """
    file = find(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text file"
        known = ", ".join(shipped(studies=file.name.startswith(_STUDY))) or "none in this folder of recipes"
        raise ConfigError(f"recipe {path}: {reason}. Recipes that come with vidloop: {known}") from None
    tree = parse_yaml(text, f"recipe {path}")
    if not isinstance(tree, dict):
        raise ConfigError(
            f"recipe {path}: expected keys and values (name: ..., model: ...), found {_kind(tree)}"
        )
    for override in overrides:
        _override(tree, override)
    return tree


def check(model: type[Model], tree: dict[str, Any], where: str, overrides: Sequence[str] = ()) -> Model:
    """`tree` as `model`.

    Raises:
        ConfigError: says `where`, which key is wrong, and for an unknown one the nearest.
    """
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        given = [override.split("=", 1)[0].strip() for override in overrides]
        items = error.errors(include_url=False)
        raise ConfigError("\n".join(_explain(model, item, where, given) for item in items)) from None


def resolve(recipe: Recipe) -> dict[str, Any]:
    """The recipe as JSON, every default written out."""
    return recipe.model_dump(mode="json")


def dump(recipe: Recipe) -> str:
    """The resolved recipe as a file that `load_recipe` reads back (JSON is YAML)."""
    return json.dumps(resolve(recipe), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def shipped(*, studies: bool = False) -> list[str]:
    """Recipes of rounds that come with vidloop; those of studies, made of rounds, are study-..."""
    names = sorted(file.name for file in folder("recipes").glob("*.yaml"))
    return [f"recipes/{name}" for name in names if name.startswith(_STUDY) == studies]


def offered(*, studies: bool = False) -> list[str]:
    """What the run forms offer: vidloop's own recipes, then those in the folders of VIDLOOP_RECIPES."""
    folders = [Path(one).expanduser() for one in os.environ.get(RECIPES, "").split(os.pathsep) if one]
    files = [file for folder in folders for file in sorted(folder.glob("*.yaml"))]
    own = [str(file.absolute()) for file in files if file.name.startswith(_STUDY) == studies]
    return list(dict.fromkeys([*shipped(studies=studies), *own]))


def _override(tree: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    names = name.strip().split(".")
    if not equals or not all(names):
        raise ConfigError(f"--set {override!r}: expected key=value, for example --set finetune.steps=100")
    place: Any = tree
    for step in names[:-1]:
        place = place.setdefault(step, {}) if isinstance(place, dict) else None
    if not isinstance(place, dict):
        raise ConfigError(f"--set {override!r}: {'.'.join(names[:-1])} is a value, it has no keys")
    place[names[-1]] = parse_yaml(text, f"--set {override!r}")


def _explain(model: type[BaseModel], item: Any, what: str, given: Sequence[str]) -> str:
    places = [str(place) for place in item["loc"]]
    key = ".".join(places)
    by_option = any(key == name or name.startswith(f"{key}.") or key.startswith(f"{name}.") for name in given)
    where = f"--set {key}" if by_option else f"{what}: {key}" if key else what
    if item["type"] == "extra_forbidden":
        return f"{where}: unknown key{_nearest(model, places)}"
    if item["type"] == "missing":
        return f"{where}: this key is required"
    message = item["msg"].removeprefix("Value error, ")
    return (
        f"{where}: {message}"
        if isinstance(item["input"], dict | BaseModel)
        else f"{where}: {message}, not {item['input']!r}"
    )


def _nearest(model: type[BaseModel], places: Sequence[str]) -> str:
    """The known key that an unknown one most likely meant: in its own part first, then anywhere."""
    part = _part_at(model, places[:-1])
    own = list(part.model_fields) if part else []
    prefix = ".".join(places[:-1])
    close = difflib.get_close_matches(places[-1], own, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {f'{prefix}.{close[0]}' if prefix else close[0]}?"
    everywhere = _all_keys(model)
    same_name = [key for key in everywhere if key.rsplit(".", 1)[-1] == places[-1]]
    best = same_name or difflib.get_close_matches(".".join(places), everywhere, n=1, cutoff=0.5)
    if best:
        return f"; did you mean {best[0]}?"
    return f"; known here: {', '.join(own)}"


def _part_at(model: type[BaseModel], places: Sequence[str]) -> type[BaseModel] | None:
    steps = iter(places)
    for place in steps:
        field = model.model_fields.get(place)
        kind = field.annotation if field else None
        if get_origin(kind) is dict:
            # A part for each name: the next place is the name.
            next(steps, None)
            kind = get_args(kind)[1]
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            return None
        model = kind
    return model


def _all_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += _all_keys(field.annotation, f"{prefix}{name}.")
    return keys


def _kind(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
