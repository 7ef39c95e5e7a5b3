"""The record of rounds in a row: what was planned, what was played, why it stopped. One JSON file.

`STORE/improvements/<id>/summary.json` is written before a round begins and after it ends, in one step each,
so that a killed `vidloop improve` finds the plan of the round it was in, and goes on from there. Nights are
such a series too, one that grows by a round a night and does not end.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import TypeAdapter

from data.errors import StoreError
from data.store import Store
from tasks.summary import Change, GuardFinding

FOLDER: Final = "improvements"
SUMMARY: Final = "summary.json"
StoppedBy = Literal["rounds", "patience", "clips", "minutes"]
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
    """

    number: int
    seed: int
    policy: str
    only: tuple[str, ...] | None
    choice: Choice | None
    learns_from: tuple[str, ...]
    attempts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Played:
    """A round that was played to its end.

    Attributes:
        number, seed, choice, learns_from: as planned.
        round: its id.
        policy_before, policy_after, promoted, verdict, primary, guards: from its summary.
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

    def drift(self) -> dict[str, float]:
        """after/before of each guard, multiplied over the promoted rounds: what small steps add up to."""
        found: dict[str, float] = {}
        for one in self.rounds:
            for name, guard in one.guards.items() if one.promoted else ():
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
        "drift": series.drift(),
    }


def save(store: Store, series: Series) -> Series:
    """Write the record, in one step; returns `series`. Raises StoreError if the store cannot be written."""
    text = json.dumps(facts_of(series), indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    store.write_file(f"{FOLDER}/{series.improve}/{SUMMARY}", text.encode())
    return series


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
    for path in sorted(store.root.glob(f"{FOLDER}/*/{SUMMARY}"), reverse=True):
        try:
            found = _JSON.validate_json(path.read_bytes())
        except (OSError, ValueError) as error:
            raise StoreError(f"cannot read {path} ({error}): move it away") from error
        yield found
