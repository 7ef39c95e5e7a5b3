"""What leaves the house: without secrets, addresses of servers, and paths of this machine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import Any, Final

from data.records import Row
from data.settings import PRIVATE, extra_of
from flows.reporting.facts import Facts
from rewards import reward_kinds
from rewards.kind import KIND
from tasks.summary import RoundSummary

# Somebody's message, or JSON that a stage or a reward wrote. Texts of prompts are the data, and stay.
_COLUMNS: Final = ("error", "detail", "reason", "settings", "curve", "source")
_ADDRESS: Final = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"<>]+")
# Two names or more: of "either/or" nothing is a path, and neither are the ends of tags.
_PATH: Final = re.compile(r"(?<![\w:/.<~-])~?(?:/[^\s/'\",;:()<>\[\]{}|\\]+){2,}/?")


def message(said: str) -> str:
    """A text with an address in place of each address, and of each absolute path its last name."""
    shorter = _ADDRESS.sub("(an address)", said)
    return _PATH.sub(lambda found: f"…/{PurePath(found[0]).name}", shorter)


def cleaned(value: Any) -> Any:
    """JSON with every text as `message` has it."""
    if isinstance(value, str):
        return message(value)
    if isinstance(value, Mapping):
        return {key: cleaned(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [cleaned(item) for item in value]
    return value


def row(one: Row) -> Row:
    """A row with its messages cleaned."""
    said = {name: getattr(one, name, None) for name in _COLUMNS if name in one.__dataclass_fields__}
    return replace(one, **{name: message(text) for name, text in said.items() if text})


def recipe(said: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved recipe: of a path its last name; private settings (`data.settings.setting`) left out.

    Settings of a reward whose kind is not installed are left out, all of them: nobody knows which are
    private.
    """
    rewards = said.get("rewards")
    instances = rewards if isinstance(rewards, Mapping) else {}
    # Rounds of an earlier release have a kind's settings at the top.
    kinds = {name: _reward(name, said[name]) for name in reward_kinds().keys() & said.keys()}
    named = {name: _reward(one.get(KIND, name), one) for name, one in instances.items()}
    held: dict[str, Any] = _names({**said, **kinds, **({"rewards": named} if named else {})})
    return held


def _reward(name: str, said: Mapping[str, Any]) -> dict[str, Any]:
    kind = reward_kinds().get(name)
    if kind is None:
        return {KIND: name}
    fields = kind.settings.model_fields
    hidden = {name for name, field in fields.items() if extra_of(field.json_schema_extra, PRIVATE)}
    return {name: value for name, value in said.items() if name not in hidden}


def _names(value: Any) -> Any:
    """Settings: a text that is an absolute path, spaces and all, becomes its last name."""
    if isinstance(value, str):
        return PurePath(value).name if value.startswith(("/", "~")) else message(value)
    if isinstance(value, Mapping):
        return {key: _names(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_names(item) for item in value]
    return value


def summary(said: RoundSummary) -> RoundSummary:
    """A round's summary with its recipe as `recipe` has it."""
    held = cleaned(said.model_dump()) | {"recipe": recipe(said.recipe)}
    return RoundSummary.model_validate(held)


def facts(said: Facts) -> Facts:
    """What a report says, with its messages cleaned; its summary as it is, and of no other round a word."""
    return replace(
        said,
        seeds=None,
        rewards=tuple(replace(one, errors=cleaned(one.errors)) for one in said.rewards),
        judges=tuple(
            replace(
                one,
                questions=tuple(replace(asked, errors=cleaned(asked.errors)) for asked in one.questions),
            )
            for one in said.judges
        ),
        curation=cleaned(said.curation),
    )
