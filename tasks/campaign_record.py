"""The record of rounds in a row: what was planned, what was played, why it stopped. One JSON file.

`STORE/improvements/<id>/summary.json` is written before a round begins and after it ends, in one step each,
so that a killed `vidloop improve` finds the plan of the round it was in, and goes on from there. Nights are
such a series too, one that grows by a round a night and does not end.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from pydantic import TypeAdapter

from data.store import Store
from data.store.twice import copy_of, read_either, write_twice
from models.gate import budget
from tasks.summary import Change, Confirmation, GuardFinding

FOLDER: Final = "improvements"
SUMMARY: Final = "summary.json"
StoppedBy = Literal["rounds", "patience", "clips", "minutes", "blocked"]
Kind = Literal["improve", "nightly"]


@dataclass(frozen=True)
class Choice:
    """How a round's prompts were chosen: see `data.curation.prompt_choice.Choice`; `of`: the set's size."""

    chosen: int
    of: int
    teachable: int
    unknown: int
    for_teaching: int


@dataclass(frozen=True)
class Planned:
    """A round that is about to be played, or was interrupted.

    Attributes:
        number: which round, from 1.
        seed: of the round's recipe.
        policy: id of the policy it starts from: the champion when it was planned.
        only: ids of its prompts; None: all.
        choice: how they were chosen; None: they were not.
        learns_from: ids of the earlier rounds whose clips it learns from too.
        attempts: ids of the rounds that were begun by this plan.
        confirm: one-sided level at which the gate's yes is confirmed; None: the gate's word is the last.
        drift: what the guards had come to when it was planned, see `Series.drift`.
        lr_scale: of the recipe's learning rate.
    """

    number: int
    seed: int
    policy: str
    only: tuple[str, ...] | None
    choice: Choice | None
    learns_from: tuple[str, ...]
    attempts: tuple[str, ...] = ()
    confirm: float | None = None
    drift: dict[str, float] = field(default_factory=dict)
    lr_scale: float = 1.0


@dataclass(frozen=True)
class Played:
    """A round that was played to its end.

    Attributes:
        number, seed, choice, learns_from: as planned.
        round: its id.
        policy_before, policy_after, promoted, verdict, primary, guards, confirmation: from its summary.
        intervals: of the primary metric "before" and "after": 95%, over prompts.
        clips: training clips of its own, and evaluation clips of both policies.
        seconds: of its stages, in the run that finished it.
    """

    number: int
    round: str
    seed: int
    policy_before: str
    policy_after: str | None
    promoted: bool
    verdict: str
    primary: Change
    intervals: dict[str, tuple[float, float] | None]
    guards: dict[str, GuardFinding]
    learns_from: tuple[str, ...]
    choice: Choice | None
    clips: int
    seconds: float
    confirmation: Confirmation | None = None


@dataclass(frozen=True)
class Reexamined:
    """The champion against the policy that the series began with, on seeds that nobody has seen.

    Attributes:
        after: number of the round that was the last one then.
        start, champion: ids of the two policies.
        key: of the comparison, whose rows are in `evaluations`.
        primary, guards: what was found, as in a round's summary.
        holds: False where the gain's interval lies below zero or a guard is broken.
        verdict: in a sentence.
    """

    after: int
    start: str
    champion: str
    key: str
    primary: Change
    guards: dict[str, GuardFinding]
    holds: bool
    verdict: str


@dataclass(frozen=True)
class Blocked:
    """That nobody is promoted any more while this policy is champion, and why."""

    champion: str
    reason: str


@dataclass(frozen=True)
class Waiting:
    """A round whose candidate waits for a person's word.

    Attributes:
        round: its id.
        run: id of the Prefect flow run that asked.
        until: when the question ends, in ISO 8601 with a time zone; no answer by then means no.
    """

    round: str
    run: str
    until: str


@dataclass(frozen=True)
class Series:
    """Rounds in a row.

    Attributes:
        improve: its id: UTC time and a short digest.
        recipe: the resolved recipe.
        start: id of the policy that the first round starts from.
        champion: id of the champion after the last round.
        rounds: those played.
        next: the round that was begun and has not ended.
        stopped_by: what ended the series; None while it goes on.
        reason: the same in words.
        kind: who adds rounds to it.
        waiting: what a person is asked about the round that was begun.
        given_up: plans that failed in several nights and were not tried again.
        reexamined: the champion against the start, oldest first.
        blocked: what forbids further promotions.
    """

    improve: str
    recipe: dict[str, Any]
    start: str
    champion: str
    rounds: tuple[Played, ...] = ()
    next: Planned | None = None
    stopped_by: StoppedBy | None = None
    reason: str | None = None
    kind: Kind = "improve"
    waiting: Waiting | None = None
    given_up: int = 0
    reexamined: tuple[Reexamined, ...] = ()
    blocked: Blocked | None = None

    @property
    def clips(self) -> int:
        """Clips of all rounds played."""
        return sum(one.clips for one in self.rounds)

    @property
    def minutes(self) -> float:
        """Minutes that the stages of all rounds played took."""
        return sum(one.seconds for one in self.rounds) / 60

    @property
    def failures(self) -> int:
        """Rounds since the last promotion."""
        since = 0
        for one in self.rounds:
            since = 0 if one.promoted else since + 1
        return since

    @property
    def error(self) -> float | None:
        """Chance of any false promotion that the series may spend; None in a record that states none."""
        stated: float | None = self.recipe["improve"].get("error")
        return stated

    @property
    def horizon(self) -> int:
        """Rounds that the error is spent over."""
        said = self.recipe["improve"]
        over: int = said["rounds"] if self.kind == "improve" else said.get("horizon", 0)
        return over

    @property
    def examined(self) -> int:
        """Rounds that had a candidate for the gate: each has spent its part of the error."""
        return sum(one.policy_after is not None for one in self.rounds)

    @property
    def spent(self) -> float | None:
        """Chance of a false promotion that the rounds so far had together, at most; None: see `error`."""
        return None if self.error is None else budget.part(self.error, self.horizon) * self.examined

    @property
    def line(self) -> list[Played]:
        """The promotions that led from the start to the champion, oldest first; not those rolled back."""
        found: list[Played] = []
        policy = self.champion
        for one in reversed(self.rounds):
            if one.promoted and one.policy_after == policy:
                found.insert(0, one)
                policy = one.policy_before
        return found

    def drift(self) -> dict[str, float]:
        """after/before of each guard, multiplied over the promotions that led to the champion."""
        found: dict[str, float] = {}
        for one in self.line:
            for name, guard in one.guards.items():
                if guard.before and guard.after is not None:
                    found[name] = found.get(name, 1.0) * guard.after / guard.before
        return found


_JSON: Final = TypeAdapter(Series)


def facts_of(series: Series) -> dict[str, Any]:
    """The record as plain JSON values."""
    facts: dict[str, Any] = _JSON.dump_python(series)
    return facts | {
        "recipe_name": series.recipe["name"],
        "clips": series.clips,
        "minutes": round(series.minutes, 3),
        "spent": series.spent,
        "drift": series.drift(),
    }


def save(store: Store, series: Series) -> Series:
    """Write the record, in one step; returns `series`. Raises StoreError if the store cannot be written."""
    write_twice(store, record_of(series.improve), facts_of(series))
    return series


def record_of(series: str) -> str:
    """Path of a series' record, below the store's root."""
    return f"{FOLDER}/{series}/{SUMMARY}"


def unfinished(store: Store, recipe: dict[str, Any]) -> Series | None:
    """The newest series of the same recipe that was interrupted; None if there is none, or it ended.

    Raises StoreError: a record is damaged.
    """
    same = (one for one in _records(store) if one.kind == "improve" and one.recipe == recipe)
    newest = next(same, None)
    return newest if newest is not None and newest.stopped_by is None else None


def nightly(store: Store) -> list[Series]:
    """Every series of nights, newest first. Raises StoreError if a record is damaged."""
    return [one for one in _records(store) if one.kind == "nightly"]


def _records(store: Store) -> Iterator[Series]:
    for name in names(store):
        found = read_either(store, record_of(name), parsed)
        if found is not None:
            yield found


def names(store: Store) -> list[str]:
    """Ids of all series, newest first; one whose record is gone is known by the copy."""
    found = [*store.find(f"{FOLDER}/*/{SUMMARY}"), *store.find(f"{FOLDER}/*/{copy_of(SUMMARY)}")]
    return sorted({path.split("/")[1] for path in found}, reverse=True)


def parsed(said: Mapping[str, Any]) -> Series:
    """A record from what its file says. Raises ValueError: it is none."""
    try:
        found = _JSON.validate_json(json.dumps(dict(said)))
        facts_of(found)  # its recipe has what is read of it
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    return found
