"""Nights: a series that grows by one round a night, from champion to champion, with and without Prefect.

champion --plan--> round --gate--> promoted over the champion it began from, kept, or put to a person

A night that was interrupted goes on the next time, by its plan and from the store. A failed one leaves the
champion as it was; so does one whose guards are broken, and one that nobody approves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from data.errors import ConfigError
from data.keys import digest
from data.store import Store
from flows.config.load import check, load_recipe, resolve
from flows.config.recipe import Recipe
from flows.config.resolve import open_round
from flows.reporting import console
from flows.rounds.campaign import (
    REMEDY,
    begin_round,
    chosen,
    end_round,
    plan,
    present,
    recipe_of,
    without_stale_plan,
)
from flows.rounds.plain import plain_stage
from flows.rounds.reexamine import Work, when_due
from flows.rounds.run_round import context_of, frozen_recipe, write_report
from tasks import campaign_record as record
from tasks import rounds
from tasks.campaign_record import Planned, Series, Waiting
from tasks.context import RoundContext
from tasks.promotion import Answer, Promotion
from tasks.round_ids import new_round_id
from tasks.summary import RoundSummary

Play = Callable[[RoundContext, Promotion], RoundSummary]
# A plan that failed so often most likely fails for ever: the next night has other clips.
ATTEMPTS: Final = 3


@dataclass(frozen=True)
class Asking:
    """That a person is to be asked before anything is promoted: by which flow run, and for how many hours."""

    run: str
    hours: float


@dataclass(frozen=True)
class Skipped:
    """Why a night was not played."""

    why: str


def night(
    recipe: Recipe,
    store: Store,
    play: Play,
    asking: Asking | None = None,
    is_open: Callable[[Waiting], bool] | None = None,
    work: Work = plain_stage,
) -> Series | Skipped:
    """Play one more round of this recipe's nights.

    Args:
        recipe: `recipe.improve` says which prompts and data; its limits on rounds and time are not for
            nights. Of `recipe.policy` only whether clips are the best of N.
        store: keeps the record, and everything else.
        play: plays a round that has begun, with Prefect or without, and returns its summary.
        asking: ask a person before anything is promoted.
        is_open: whether a question of an earlier night can still be answered; default: while it is in time.
        work: computes what a re-examination of the champion lacks, with Prefect or without.

    Returns:
        The series with the night in it; with `waiting` if a person is to be asked now, then `settle` ends it.

    Raises:
        ConfigError: the recipe or the store is wrong, or another night or `improve` works in this store.
        StageFailed: the round did not finish. What was done is kept; the next night goes on from there.
    """
    say = console.info
    with store.lock("nightly", wait=False), store.lock("improve", wait=False):
        for one in record.nightly(store):
            if one.waiting is not None:
                if (is_open or in_time)(one.waiting):
                    return Skipped(
                        f"round {one.waiting.round} waits for a person's approval until {one.waiting.until}"
                    )
                _settle(store, one, None)
        series, _ = next_night(recipe, store)
        if series.next is None:  # what an approved night, or an interrupted one, has left to be done
            when_due(recipe, store, series, present(recipe, store), work)
        if why := forbidden(recipe, store):
            return Skipped(why)
        series, planned = next_night(recipe, store)
        series, context = begin_round(recipe, store, series, planned)
        again = f", attempt {len(planned.attempts) + 1}" if planned.attempts else ""
        say(f"Night {planned.number} of {series.improve}{again}, seed {planned.seed}{chosen(planned)}")
        summary = play(context, "over its start" if asking is None else "asked")
        if summary.approval is not None and asking is not None:
            until = datetime.now(UTC) + timedelta(hours=asking.hours)
            waiting = Waiting(context.run_id, asking.run, until.isoformat(timespec="seconds"))
            return record.save(store, replace(series, waiting=waiting))
        series = end_round(recipe, store, series, context, summary)
        return when_due(recipe, store, series, present(recipe, store), work)


def forbidden(recipe: Recipe, store: Store) -> str | None:
    """Why the next night must not be played, and what a person can do; None: nothing forbids it."""
    series, _ = next_night(recipe, store)
    command = f"with `vidloop new-series {series.improve}`"
    if series.blocked is not None:
        return f"{series.blocked.reason} {REMEDY} {command}"
    if series.examined >= series.horizon:
        return (
            f"the nights {series.improve} have spent their error budget, {series.error:.3g} over "
            f"{series.horizon} nights. Begin a new series from the champion {command}, or say a longer "
            "improve.horizon, which begins one too"
        )
    return None


def begin_anew(store: Store, name: str) -> Series:
    """Begin a series of nights in the place of another, with its recipe, from the present champion.

    Args:
        store: keeps both.
        name: id of the other.

    Raises:
        ConfigError: the store has no such series of nights, or a night of it waits for a person's approval.
        StoreError: the store cannot be read or written.
    """
    with store.lock("nightly", wait=False):
        held = record.nightly(store)
        before = next((one for one in held if one.improve == name), None)
        if before is None:
            known = ", ".join(one.improve for one in held) or "none"
            raise ConfigError(f"{store.url} has no series of nights {name!r}; it has {known}")
        if before.waiting is not None:
            raise ConfigError(f"round {before.waiting.round} waits for a person's approval: answer it first")
        recipe = check(Recipe, before.recipe, f"the recipe of the nights {name}")
        start = present(recipe, store).policy_id
        return record.save(store, Series(new_round_id(store), resolve(recipe), start, start, kind="nightly"))


def next_night(recipe: Recipe, store: Store) -> tuple[Series, Planned]:
    """The series that the next night belongs to, and its plan. Nothing is written.

    Every night has a seed of its own, whatever its recipe: by the number of nights that the store has seen.
    """
    held = record.nightly(store)
    series = next((one for one in held if one.recipe == resolve(recipe)), None)
    past = sum(len(one.rounds) + one.given_up for one in held)
    if series is None:
        start = present(recipe, store).policy_id
        series = Series(new_round_id(store), resolve(recipe), start, start, kind="nightly")
    series = without_stale_plan(recipe, store, series)
    if series.blocked is not None and present(recipe, store).policy_id != series.blocked.champion:
        series = replace(series, blocked=None)  # a person has gone back, or on
    if series.next is not None and len(series.next.attempts) >= ATTEMPTS:
        series, past = replace(series, next=None, given_up=series.given_up + 1), past + 1
    seed = int(digest(["nightly", recipe.seed, past + 1])[:8], 16)
    return series, series.next or plan(recipe, store, series, seed)


def to_look_at(recipe: Recipe, store: Store) -> RoundContext:
    """The next night as a context; nothing is written."""
    _, planned = next_night(recipe, store)
    return open_round(recipe_of(recipe, planned), store, "plan")


def asked_by(store: Store, run: str) -> Series | None:
    """The series with the question that a flow run asks; None if it asks none."""
    return next((one for one in record.nightly(store) if one.waiting and one.waiting.run == run), None)


def settle(store: Store, series: Series, answer: Answer | None) -> Series:
    """End the night that waits, by a person's answer; None: there was none in time.

    Raises:
        StoreError: the round's files are missing or damaged, or the store cannot be written.
    """
    with store.lock("nightly"):
        return _settle(store, series, answer)


def _settle(store: Store, series: Series, answer: Answer | None) -> Series:
    assert series.waiting is not None
    root, round_id = store.url, series.waiting.round
    context = context_of(root, round_id)
    summary = rounds.settle(context, answer)
    console.info(summary.verdict)
    write_report(context)
    return end_round(load_recipe(frozen_recipe(root, round_id)), store, series, context, summary)


def in_time(waiting: Waiting) -> bool:
    """Whether a question's time is not over."""
    return datetime.now(UTC) < datetime.fromisoformat(waiting.until)


def summary_of(store: Store, series: Series) -> RoundSummary:
    """The summary of the newest night: the one that waits, or else the last one played."""
    newest = series.waiting.round if series.waiting else series.rounds[-1].round
    return rounds.read_summary(store, newest)
