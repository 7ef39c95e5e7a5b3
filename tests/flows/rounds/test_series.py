"""What a series of rounds may err in all, and its champion against its start: spent, blocked, begun anew."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from data import champion
from data.errors import UserError
from data.records import Policy
from data.store import Store
from flows.config.load import load_recipe, resolve
from flows.config.recipe import Recipe
from flows.reporting.campaign import build_page, table
from flows.rounds.campaign import plan, present, recipe_of, why_stop
from flows.rounds.night import Skipped, forbidden, next_night, night
from flows.rounds.plain import plain_stage
from flows.rounds.reexamine import when_due
from tasks import campaign_record as record
from tasks.campaign_record import Blocked, Planned, Series
from tasks.context import RoundContext
from tasks.promotion import Promotion
from tasks.stage_spec import Phase
from tasks.summary import RoundSummary
from tasks.units import StageResult, Unit
from tests.flows.rounds.test_campaign import opened, played, recipe_for
from tests.rejudge import rejudge
from tests.tiny_round import Ended, Tiny, empty_adapter


def nights_of(recipe: Recipe, store: Store, *rounds: Any) -> Series:
    """The record of nights that began from the base."""
    start, now = find_start(recipe, store), present(recipe, store).policy_id
    return record.save(
        store, Series("20260101T000000-00000000", resolve(recipe), start, now, rounds, kind="nightly")
    )


def find_start(recipe: Recipe, store: Store) -> str:
    from models.policy import policy_id

    return policy_id(present(recipe, store).base_id)


def crown(store: Store, recipe: Recipe) -> str:
    """A policy that changes nothing becomes champion."""
    base = present(recipe, store).base_id
    media = store.write_media(empty_adapter(base), ".safetensors")
    row = Policy("m7", base, [], "sft", "d1", media.path, media.sha256, 2, 2.0, ["to_q"], 3, "{}", "[]")
    store.commit("finetune", {"stage": "finetune"}, {"policies": [row]}, [media])
    return champion.set_champion(store, "m7").policy_id


def never(context: RoundContext, promotion: Promotion = "at once") -> RoundSummary:
    raise AssertionError("this night must not be played")


@pytest.mark.parametrize(
    ("overrides", "level"),
    [
        ([], 0.05 / 365),
        (["improve.error=0.01", "improve.horizon=30"], 0.01 / 30),
        (["improve.horizon=1"], None),
    ],
)
def test_a_nights_recipe_says_at_which_level_it_is_confirmed(
    tiny: Tiny, overrides: list[str], level: float | None
) -> None:
    recipe, store = recipe_for(tiny, *overrides), opened(tiny)
    _, planned = next_night(recipe, store)
    assert planned.confirm == (None if level is None else pytest.approx(level))
    assert recipe_of(recipe, planned).gate.confirm == planned.confirm
    # Of rounds in a row the rounds are the horizon: two of 2.5% are 5%.
    two = recipe_for(tiny, *overrides, "improve.rounds=2", "improve.error=0.05")
    series = Series("20260101T000000-00000000", resolve(two), "m0", "m0")
    assert plan(two, store, series).confirm is None
    assert plan(two.changed(improve=two.improve.changed(rounds=20)), store, series).confirm == pytest.approx(
        0.05 / 20
    )


def test_a_spent_budget_ends_the_nights_until_a_new_series(tiny: Tiny, vidloop: Callable[..., Ended]) -> None:
    recipe, store = recipe_for(tiny, "improve.horizon=2"), opened(tiny)
    # Nothing to learn from: the gate was not asked, and nothing is spent.
    series = nights_of(recipe, store, played(1), played(2, policy_after=None))
    assert (series.spent, series.examined) == (0.025, 1)
    assert record.facts_of(series)["spent"] == 0.025
    assert forbidden(recipe, store) is None
    series = nights_of(recipe, store, played(1), played(2, policy_after=None), played(3))
    assert any(
        line.startswith("Error budget: 5% of 5% chance of any false promotion spent, 2 of 2 nights")
        for line in table(series)
    )
    skipped = night(recipe, store, never)
    assert isinstance(skipped, Skipped)
    assert "have spent their error budget, 0.05 over 2 nights" in skipped.why
    assert f"vidloop new-series {series.improve}" in skipped.why
    # Another horizon is another series; the spent one is still spent.
    assert forbidden(recipe_for(tiny, "improve.horizon=3"), store) is None
    assert forbidden(recipe, store) == skipped.why

    ended = vidloop("new-series", series.improve, "--store", tiny.store)
    assert ended.code == 0, ended.err
    assert forbidden(recipe, store) is None
    anew, planned = next_night(recipe, store)
    assert (anew.rounds, anew.spent, planned.number) == ((), 0.0, 1)
    assert anew.improve in ended.out
    refused = vidloop("new-series", "20250101T000000-00000000", "--store", tiny.store)
    assert (refused.code, "has no series of nights" in refused.err) == (2, True)


def test_the_champion_against_the_start_and_a_worse_one_blocks(tiny: Tiny) -> None:
    recipe, store = recipe_for(tiny, "improve.reexamine_every=2", "evaluate.guards=[motion]"), opened(tiny)
    crowned = crown(store, recipe)
    start = find_start(recipe, store)
    rounds = (played(1, True, policy_before=start, policy_after=crowned), played(2))
    seen: list[tuple[RoundContext, Unit]] = []

    def watched(stage: str, context: RoundContext, phases: Iterable[Phase]) -> StageResult:
        def passing() -> Iterator[Phase]:
            for phase in phases:
                seen.extend((context, unit) for unit in phase.units)
                yield phase

        return plain_stage(stage, context, passing())

    def examined(series: Series, ended: bool = False) -> Series:
        return when_due(recipe, store, series, present(recipe, store), watched, ended)

    one = nights_of(recipe, store, *rounds[:1])
    assert examined(one) == one
    assert not seen
    two = nights_of(recipe, store, *rounds)
    holding = examined(two)
    (found,) = holding.reexamined
    assert (found.after, found.start, found.champion, found.holds) == (2, start, crowned, True)
    assert found.verdict.startswith("The champion holds: physics stayed")
    assert record.nightly(store) == [holding]
    assert examined(holding) == holding
    context, comparison = seen[-1]
    rejudge(context, comparison.sides, {start: 1.0, crowned: 0.0})  # type: ignore[attr-defined]  # a comparison

    # What the clips are worth has changed, so the same question has another answer.
    blocked = examined(two)
    assert blocked.blocked == Blocked(crowned, blocked.reexamined[0].verdict)
    assert "does not hold against the start (physics is surely lower): physics fell" in blocked.blocked.reason
    skipped = night(recipe, store, never)
    assert isinstance(skipped, Skipped)
    assert skipped.why.startswith(blocked.blocked.reason)
    assert "`vidloop champion rollback`" in skipped.why
    assert f"vidloop new-series {two.improve}" in skipped.why
    planned = Planned(3, 1, crowned, None, None, ())
    stopped = why_stop(recipe, replace(blocked, kind="improve"), planned)
    assert stopped is not None
    assert stopped[0] == "blocked"
    assert [line for line in table(blocked) if line.startswith("Blocked: The champion does not hold")]
    assert "The champion against the start" in build_page(store, blocked).read_text("utf-8")

    # A person goes back: the nights go on, from the policy that is champion then.
    champion.rollback(store)
    assert forbidden(recipe, store) is None
    series, planned = next_night(recipe, store)
    assert (series.improve, series.blocked, planned.policy) == (two.improve, None, start)


def test_a_night_does_first_what_an_approved_one_has_left(tiny: Tiny) -> None:
    recipe, store = recipe_for(tiny, "improve.reexamine_every=1"), opened(tiny)
    crowned = crown(store, recipe)
    first = played(1, True, policy_before=find_start(recipe, store), policy_after=crowned)
    nights_of(recipe, store, first)
    asked: list[str] = []

    def look(stage: str, context: RoundContext, phases: Iterable[Phase]) -> StageResult:
        asked.append(stage)
        raise UserError("the judge is gone")

    with pytest.raises(UserError, match="the judge is gone"):
        night(recipe, store, never, work=look)
    assert asked == ["evaluate"]
    # Nobody is asked where there is no champion but the start, or where the recipe wants none.
    never_again = load_recipe(str(tiny.recipe), ["improve.reexamine_every=null"])
    one = nights_of(never_again, store, first)
    assert when_due(never_again, store, one, present(recipe, store), look, ended=True) == one
    champion.rollback(store)
    one = nights_of(recipe, store, first)
    assert when_due(recipe, store, one, present(recipe, store), look) == one
