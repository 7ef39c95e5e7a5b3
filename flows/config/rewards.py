"""The rewards of a recipe: names of the user's, each with a kind and its settings.

    rewards: [clip, flow]                                       the short form: a kind under its own name
    rewards: {teacher: {kind: judge, model: ...}, clip: {}}     names of one's own
    judge: {backend: local}                                     more settings, by a reward's name or a kind's

All of them become the mapping from names to settings; the registry (`rewards.registry`) knows the kinds.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field, PlainValidator, SerializeAsAny, create_model

from data.explain import nearest, part_at
from data.settings import Settings
from models.gate.settings import DIVERSITY
from rewards import reward_kind, reward_kinds
from rewards.judge.settings import JudgeSettings, model_path
from rewards.kind import KIND

REWARDS: Final = "rewards"
DEFAULT: Final = ("physics",)
# What `physics` is called where it teaches.
ORACLE: Final = "oracle"
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")


@functools.cache
def instance_model(kind: str) -> type[Settings]:
    """Settings of a kind of reward with a field `kind`, as a recipe holds them. Raises ConfigError."""
    own = reward_kind(kind).settings
    named = Field(default=kind, title="Kind", description="Which reward it is.")
    fields: dict[str, Any] = {KIND: (Literal[kind], named)}
    bases = (_Picklable, own)
    made: type[Settings] = create_model(own.__name__, __base__=bases, __doc__=own.__doc__, **fields)
    return made


class _Picklable(Settings):
    """A class that was made, and not written, is made again where it is unpickled."""

    def __reduce__(self) -> Any:
        return _instance, ({KIND: kind_of(self), **self.model_dump(exclude_unset=True)},)


def _instance(given: Any) -> Settings:
    if isinstance(given, Settings):
        return given
    if not isinstance(given, Mapping):
        raise ValueError("expected a kind and its settings")
    kind = given.get(KIND)
    if not isinstance(kind, str):
        raise ValueError(f"say which kind of reward it is (kind: ...): {', '.join(reward_kinds())}")
    if kind not in reward_kinds():
        raise ValueError(f"there is no reward {kind!r}{nearest(str(kind), reward_kinds())}")
    return instance_model(kind).model_validate(given)


Instance = Annotated[
    SerializeAsAny[Settings], PlainValidator(_instance, json_schema_input_type=dict[str, Any])
]
"""Settings of some kind of reward, with a field `kind`."""


def taught_by(feedback: str) -> str:
    """Name of the reward that a feedback learns from: the physics reward is called oracle there."""
    return "physics" if feedback == ORACLE else feedback


def kind_of(instance: Settings) -> str:
    """Name of the kind of a recipe's reward."""
    kind: str = getattr(instance, KIND)
    return kind


def same_weights(one: Settings, other: Settings) -> bool:
    """Whether two rewards are judges of one model, whatever they ask it and however they run it.

    A hub id without a commit may be any of that id's. Folders are compared by their place.
    """
    if not (isinstance(one, JudgeSettings) and isinstance(other, JudgeSettings)):
        return False
    commits = {one.revision, other.revision} - {""}
    return model_path(one) == model_path(other) and len(commits) < 2


def folded(said: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    """What a recipe says, with every form of saying rewards as the mapping.

    A block that bears a reward's name says more of that one; one that bears a kind's, more of all rewards of
    that kind, where they say nothing themselves. A block of a kind that `rewards` does not name describes one
    that is not scored on training clips, but may be the metric, or a guard.

    Args:
        said: the whole recipe.
        keys: those of a recipe, which no reward may be called.

    Raises:
        ValueError: a name is given twice, is no name, or is that of something else.
    """
    tree = dict(said)
    kinds = reward_kinds()
    given = as_mapping(tree.get(REWARDS, DEFAULT))
    if not isinstance(given, Mapping):
        return tree
    named = {name: _with_kind(name, body, kinds) for name, body in given.items()}
    blocks = {key: tree.pop(key) for key in list(tree) if key not in keys and (key in kinds or key in named)}
    for key, block in blocks.items():
        if not isinstance(block, Mapping):
            raise ValueError(f"{key}: expected settings of a reward")
        for name, body in named.items():
            if isinstance(body, Mapping) and key == name:
                named[name] = merged(body, block)
            elif isinstance(body, Mapping) and key == body.get(KIND):
                named[name] = merged(block, body)
    _check_names(named, keys, kinds)
    apart = [key for key in blocks if not any(key in (name, _kind(body)) for name, body in named.items())]
    tree[REWARDS] = named | {key: {KIND: key, **blocks[key]} for key in apart}
    score = tree.get("score", {})
    if apart and isinstance(score, Mapping) and score.get(REWARDS) is None:
        tree["score"] = {**score, REWARDS: list(named)}
    return tree


def as_mapping(given: Any) -> Any:
    """The short form as the long one; anything else as it is."""
    if not isinstance(given, Sequence) or isinstance(given, str):
        return given
    if len(set(map(str, given))) != len(given):
        raise ValueError("rewards names one twice")
    return {name: {} for name in map(str, given)}


def override(tree: dict[str, Any], said: Mapping[str, Any]) -> None:
    """Have `--set KIND.key=value` reach the rewards of that kind that say something else themselves.

    And what it says below `rewards.NAME` the block that bears this name, which would say otherwise.
    """
    given = tree.get(REWARDS)
    ((kind, settings),) = said.items()
    if not isinstance(given, dict) or not isinstance(settings, Mapping):
        return
    for name, body in settings.items() if kind == REWARDS else ():
        if isinstance(body, Mapping) and isinstance(tree.get(name), Mapping):
            tree[name] = merged(tree[name], body)
    for name, body in given.items():
        says = isinstance(body, Mapping) and body.get(KIND) == kind and body.keys() & settings.keys()
        if name != kind and says:
            given[name] = merged(body, settings)


def merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Both, part by part; where both say something, what `other` says."""
    both = {**one, **other}
    for key in one.keys() & other.keys():
        if isinstance(one[key], Mapping) and isinstance(other[key], Mapping):
            both[key] = merged(one[key], other[key])
    return both


def bodies(tree: Mapping[str, Any], kinds: Mapping[str, str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Wherever a recipe says settings of a reward: (place, kind, what it says there)."""
    given = tree.get(REWARDS)
    named = {f"{REWARDS}.{name}": body for name, body in given.items()} if isinstance(given, dict) else {}
    for place, body in {**tree, **named}.items():
        kind = _kind(body) or kinds.get(place.removeprefix(f"{REWARDS}."))
        if isinstance(body, dict) and kind is not None and kind in reward_kinds():
            yield place, kind, body


def kinds_of(tree: Mapping[str, Any]) -> dict[str, str]:
    """Names that a recipe's rewards go by, those of kinds among them, and their kinds."""
    given = tree.get(REWARDS)
    own = {name: _kind(body) or name for name, body in given.items()} if isinstance(given, dict) else {}
    return {kind: kind for kind in reward_kinds()} | own


def settings_at(tree: Mapping[str, Any], places: Sequence[str]) -> type[BaseModel] | None:
    """The settings at some places of a recipe, if they are of a reward; for errors."""
    if places[:1] != [REWARDS] or len(places) < 2:
        return None
    given = as_mapping(tree.get(REWARDS, DEFAULT))
    kind = (_kind(given.get(places[1])) if isinstance(given, Mapping) else None) or places[1]
    return part_at(instance_model(kind), places[2:]) if kind in reward_kinds() else None


def written(tree: Mapping[str, Any], places: Sequence[str]) -> list[str]:
    """Where a recipe says what was found at `places` of its rewards: there, or in a block of its own."""
    if places[:1] != [REWARDS] or len(places) < 3:
        return list(places)
    given = as_mapping(tree.get(REWARDS, DEFAULT))
    for block in (places[1], _kind(given.get(places[1])) if isinstance(given, Mapping) else None):
        if block and isinstance(tree.get(block), Mapping) and places[2] in tree[block]:
            return [block, *places[2:]]
    return list(places)


def _with_kind(name: str, body: Any, kinds: Collection[str]) -> Any:
    said = {} if body is None else body
    return {KIND: name, **said} if isinstance(said, Mapping) and name in kinds else said


def _kind(body: Any) -> str | None:
    kind = body.get(KIND) if isinstance(body, Mapping) else getattr(body, KIND, None)
    return kind if isinstance(kind, str) else None


def _check_names(named: Mapping[str, Any], keys: Collection[str], kinds: Collection[str]) -> None:
    for name, body in named.items():
        if not _NAME.fullmatch(name):
            raise ValueError(f"rewards: {name[:80]!r} is no name: use letters, digits, _ and -")
        if name in keys or name in (DIVERSITY, ORACLE):
            raise ValueError(f"rewards: {name!r} is the name of something else: choose another")
        if name in kinds and _kind(body) not in (None, name):
            raise ValueError(
                f"rewards: {name!r} is the name of a kind, and this one is a {_kind(body)}: choose another"
            )
