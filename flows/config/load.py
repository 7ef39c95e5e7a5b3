"""Reading a recipe: YAML file + `--set a.b=c`, with errors that name file, key and nearest key."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from data.errors import ConfigError
from data.explain import listed, part_at, reason, unknown
from data.resources import find
from data.resources import shipped as files_shipped
from data.settings import RenamedKey, extra_of
from data.yaml_text import DEPTH, read_yaml
from flows.config import rewards
from flows.config.log import logger
from flows.config.option import value_of
from flows.config.recipe import Recipe
from rewards import reward_kind, reward_kinds

# Environment variable: folders with more recipes for the run forms, as in PATH.
RECIPES = "VIDLOOP_RECIPES"
# How the names of studies' files begin.
_STUDY = "study-"
# So many characters of an option are shown in errors.
_SHOWN = 120
# What JSON leaves as it is inside a text, and YAML reads as the end of a line.
_BREAKS = {ord(one): f"\\u{ord(one):04x}" for one in "\x85\u2028\u2029"}

Model = TypeVar("Model", bound=BaseModel)


def load_recipe(path: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in `path` with each `a.b=c` of `overrides` put in its place.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or says something a recipe does not know or allow.
    """
    return check(Recipe, read_tree(path, overrides), f"recipe {path}", overrides)


def read_tree(path: str, overrides: Sequence[str] = (), model: type[BaseModel] = Recipe) -> dict[str, Any]:
    """What a YAML file of keys and values says, with the overrides in their places; nothing is checked.

    Args:
        path: of the file.
        overrides: each `a.b=c`; c is a text to the letter where `model` takes texts at a.b, else YAML.
        model: of what the file holds.

    Raises:
        ConfigError: the file cannot be read, or is not YAML, or an override does not fit it.
    """
    file = find(path)
    if not os.path.exists(file) and file.name == path:
        file = files_shipped("recipes").get(f"{path}.yaml", file)
    try:
        tree = read_yaml(file, f"recipe {path}")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "this is no path"
        known = ", ".join(shipped(studies=file.name.startswith(_STUDY))) or "none in this folder of recipes"
        raise ConfigError(f"recipe {path}: {reason}. Recipes that come with vidloop: {known}") from None
    if not isinstance(tree, dict):
        kind = "nothing" if tree is None else f"a {type(tree).__name__}"
        raise ConfigError(f"recipe {path}: expected keys and values (name: ..., model: ...), found {kind}")
    _rename(tree, rewards.kinds_of(tree))
    for override in overrides:
        _override(tree, override, model)
    return tree


def rename(model: type[BaseModel], tree: dict[str, Any], prefix: str = "") -> None:
    """Bring keys of `tree` to their present names, in place; the log names each that had a former one.

    A key under both names is left to the check, which refuses it.
    """
    for name, field in model.model_fields.items():
        former = extra_of(field.json_schema_extra, "formerly")
        if former in tree and name not in tree:
            renamed = "%s%s is now called %s%s; the old name works for one more release"
            logger().warning(renamed, prefix, former, prefix, name)
            tree[name] = tree.pop(former)
        inner = part_at(model, [name])
        if inner is not None and isinstance(tree.get(name), dict):
            rename(inner, tree[name], f"{prefix}{name}.")


def check(model: type[Model], tree: dict[str, Any], where: str, overrides: Sequence[str] = ()) -> Model:
    """`tree` as `model`.

    Raises:
        ConfigError: says `where`, which key is wrong, and for an unknown one the nearest.
    """
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", RenamedKey)
            found = model.model_validate(tree)
        for one in caught:  # of settings that only their reward's kind knows
            logger().warning("%s: %s", where, one.message)
        return found
    except ValidationError as error:
        given = [override.split("=", 1)[0].strip() for override in overrides]
        said = listed(error, lambda item: _explain(model, item, tree, where, given))
        raise ConfigError(said) from None


def resolve(recipe: Recipe) -> dict[str, Any]:
    """The recipe as JSON, every default written out."""
    return recipe.model_dump(mode="json")


def dump(recipe: Recipe) -> str:
    """The resolved recipe as a file that `load_recipe` reads back (JSON is YAML)."""
    text = json.dumps(resolve(recipe), indent=2, sort_keys=True, ensure_ascii=False)
    return text.translate(_BREAKS) + "\n"


def shipped(*, studies: bool = False) -> list[str]:
    """Recipes of rounds, ours and plug-ins'; those of studies, made of rounds, are named study-..."""
    names = sorted(files_shipped("recipes"))
    return [f"recipes/{name}" for name in names if name.startswith(_STUDY) == studies]


def offered(*, studies: bool = False) -> list[str]:
    """What the run forms offer: recipes that come with packages, then those of VIDLOOP_RECIPES' folders."""
    folders = [Path(one).expanduser() for one in os.environ.get(RECIPES, "").split(os.pathsep) if one]
    files = [file for folder in folders for file in sorted(folder.glob("*.yaml"))]
    own = [str(file.absolute()) for file in files if file.name.startswith(_STUDY) == studies]
    return list(dict.fromkeys([*shipped(studies=studies), *own]))


def _rename(tree: dict[str, Any], kinds: Mapping[str, str]) -> None:
    rename(Recipe, tree)
    for place, kind, said in rewards.bodies(tree, kinds):
        rename(reward_kind(kind).settings, said, f"{place}.")


def _override(tree: dict[str, Any], override: str, model: type[BaseModel]) -> None:
    name, equals, text = override.partition("=")
    given = name.strip().split(".")
    where = f"--set {override if len(override) <= _SHOWN else f'{override[:_SHOWN]}...'!r}"
    if not equals or not all(given):
        raise ConfigError(f"{where}: expected key=value, for example --set finetune.steps=100")
    if len(given) > DEPTH:
        raise ConfigError(f"{where}: a key of {len(given)} parts, there are at most {DEPTH}")
    names = _names(_within(given, text), given, tree)
    # "key = value" is as good as "key=value"; else a blank is of the text.
    value = value_of(text.lstrip() if name != name.rstrip() else text, where, model, names, tree)
    said = _within(names, value)
    _rename(said, rewards.kinds_of(tree))  # keys in the value
    if names[0] == rewards.REWARDS and names[1:]:
        tree[rewards.REWARDS] = rewards.as_mapping(tree.get(rewards.REWARDS, rewards.DEFAULT))
    place: Any = tree
    for step in names[:-1]:
        place = place.setdefault(step, {}) if isinstance(place, dict) else None
    if not isinstance(place, dict):
        raise ConfigError(f"{where}: {'.'.join(names[:-1])} is a value, it has no keys")
    place[names[-1]] = value
    rewards.override(tree, said)


def _within(names: Sequence[str], value: Any) -> dict[str, Any]:
    for name in reversed(names):
        value = {name: value}
    found: dict[str, Any] = value
    return found


def _names(said: dict[str, Any], given: Sequence[str], tree: Mapping[str, Any]) -> list[str]:
    """The present names of a key."""
    _rename(said, rewards.kinds_of(tree))
    names, value = [], said
    for _ in given:
        ((step, value),) = value.items()
        names.append(step)
    return names


def _explain(model: type[BaseModel], item: Any, tree: dict[str, Any], what: str, given: Sequence[str]) -> str:
    found = [str(place) for place in item["loc"]]
    places = rewards.written(tree, found)
    key = ".".join(places)
    by_option = any(key == name or name.startswith(f"{key}.") or key.startswith(f"{name}.") for name in given)
    where = f"--set {key}" if by_option else f"{what}: {key}" if key else what
    inside = rewards.settings_at(tree, found[:-1])
    return f"{where}: {reason(item) or unknown(model, places, inside, also=reward_kinds())}"
