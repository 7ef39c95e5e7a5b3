"""Rounds that differ in the seed alone: what a recipe gains on average, and how much that varies."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from pydantic import BaseModel

from data.errors import ConfigError, StoreError
from data.explain import part_at
from data.settings import extra_of
from data.store import Store
from flows.config.recipe import Recipe
from rewards import reward_kinds
from rewards.kind import KIND
from tasks.rounds import finished, read_summary
from tasks.summary import RoundSummary

_MAY_DIFFER: Final = ("seed", "name")


@dataclass(frozen=True)
class Spread:
    """The gain of a recipe over seeds.

    Attributes:
        rounds: one a seed, in the order of seeds; also those that compared nothing.
        mean: of the gains that were measured; None: none was.
        deviation: their standard deviation (n - 1 in the denominator); None below two.
        n: how many were measured.
    """

    ENOUGH: ClassVar[int] = 4
    """Seeds from which on a deviation says something."""

    rounds: tuple[RoundSummary, ...]
    mean: float | None
    deviation: float | None
    n: int

    @property
    def metric(self) -> str:
        """What was measured."""
        return self.rounds[0].primary.metric


def spread(rounds: Sequence[RoundSummary]) -> Spread:
    """The gain over rounds that a person named, two or more.

    Raises:
        ConfigError: they differ in more than the seed, or two of them have one seed.
    """
    for one in rounds[1:]:
        found = differences(rounds[0].recipe, one.recipe)
        if found:
            told = f"rounds {rounds[0].round} and {one.round} differ in more than the seed"
            raise ConfigError(f"{told}: {', '.join(found)}. Name rounds of one recipe")
    seeds = [one.recipe.get("seed") for one in rounds]
    if len(set(seeds)) < len(seeds):
        raise ConfigError(
            f"two of these rounds have one seed ({', '.join(map(str, seeds))}): name one of each"
        )
    return over(rounds)


def alike(store: Store, summary: RoundSummary) -> list[RoundSummary]:
    """A round and those of its store that differ from it in the seed alone: of each other seed the newest.

    Other rounds whose summary cannot be read are passed over.
    """
    found = {summary.recipe.get("seed"): summary}
    for name in reversed(finished(store)):
        with suppress(StoreError):
            other = read_summary(store, name)
            seed = other.recipe.get("seed")
            if seed not in found and not differences(summary.recipe, other.recipe):
                found[seed] = other
    return list(found.values())


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Keys of two resolved recipes that decide results and differ, but for the seed and the name."""
    first, second = dict(_deciding(one, Recipe)), dict(_deciding(other, Recipe))
    keys = [key for key in first | second if key not in _MAY_DIFFER]
    return [key for key in keys if first.get(key) != second.get(key)]


def _deciding(
    said: Mapping[str, Any], model: type[BaseModel] | None, where: str = ""
) -> Iterator[tuple[str, Any]]:
    """Settings by their path, without those that change only what a result costs."""
    for name, value in said.items():
        field = model.model_fields.get(name) if model is not None else None
        if field is not None and extra_of(field.json_schema_extra, "cost_only"):
            continue
        if not isinstance(value, Mapping):
            yield f"{where}{name}", value
        elif where == "rewards.":
            kind = reward_kinds().get(value.get(KIND, name))
            yield from _deciding(value, kind.settings if kind else None, f"{where}{name}.")
        else:
            yield from _deciding(value, part_at(model, [name]) if model else None, f"{where}{name}.")


def over(rounds: Sequence[RoundSummary]) -> Spread:
    """The gain over these rounds, of a seed each; there is at least one."""
    ordered = tuple(sorted(rounds, key=lambda one: one.recipe.get("seed", 0)))
    gains = [one.primary.delta for one in ordered if one.primary.delta is not None]
    return Spread(
        ordered,
        statistics.fmean(gains) if gains else None,
        statistics.stdev(gains) if len(gains) > 1 else None,
        len(gains),
    )
