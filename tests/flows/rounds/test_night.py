"""Nights without Prefect: what is promoted and what is not, whose seeds, what goes on where."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from data import champion
from data.errors import StageFailed, UserError
from data.records import Policy
from data.store import Store
from flows.config.load import load_recipe
from flows.config.recipe import Recipe
from flows.rounds import night as nights
from flows.rounds.campaign import present
from flows.rounds.night import ATTEMPTS, Asking, Skipped, next_night, night, settle
from flows.rounds.plain import plain_round
from tasks import campaign_record as record
from tasks.campaign_record import Series
from tasks.context import RoundContext
from tasks.promotion import Answer, Promotion
from tasks.rounds import read_summary
from tasks.summary import RoundSummary
from tests.tiny_nights import BREAKS_A_GUARD, KEEPS, PROMOTES
from tests.tiny_round import Tiny, cached, empty_adapter

YES = Answer(True, "Ada", "the balls land now")
NO = Answer(False, "Ada", "they look frozen")


@pytest.fixture(scope="module")
def tiny_model(calm_model: Path) -> Path:
    return calm_model


def opened(tiny: Tiny) -> Store:
    return Store.open(tiny.store, create=True)


def recipe_for(tiny: Tiny, overrides: list[str]) -> Recipe:
    return load_recipe(str(tiny.recipe), overrides)


def play(context: RoundContext, promotion: Promotion) -> RoundSummary:
    return plain_round(context, promotion=promotion)


def played(outcome: Series | Skipped) -> Series:
    assert isinstance(outcome, Series), outcome
    return outcome


@pytest.mark.slow
def test_a_promotion_then_a_night_from_the_new_champion_on_other_clips(tiny: Tiny) -> None:
    store, recipe = opened(tiny), recipe_for(tiny, PROMOTES)
    first = played(night(recipe, store, play))
    (one,) = first.rounds
    assert one.promoted, one.verdict
    assert champion.history(store) == [champion.Champion(str(one.policy_after), one.round)]
    second = played(night(recipe, store, play))
    assert second.improve == first.improve
    two = second.rounds[1]
    assert (two.policy_before, two.number) == (one.policy_after, 2)
    assert two.seed not in (one.seed, recipe.seed)
    # Not simply the night before out of the cache.
    assert {
        part: have for part, (have, _) in cached(read_summary(store, two.round).model_dump()).items()
    } == dict.fromkeys(("generate", "score", "curate", "finetune", "evaluate"), 0)
    # Another recipe is another series, and its seeds are its own all the same.
    other, planned = next_night(recipe_for(tiny, [*PROMOTES, "finetune.steps=41"]), store)
    assert (other.rounds, planned.number) == ((), 1)
    assert planned.seed not in (one.seed, two.seed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "words"), [(KEEPS, "that is not surely better"), (BREAKS_A_GUARD, "flicker is broken")]
)
def test_what_the_gate_does_not_let_through_leaves_the_champion(
    tiny: Tiny, overrides: list[str], words: str
) -> None:
    store = opened(tiny)
    ended = played(night(recipe_for(tiny, overrides), store, play))
    assert not ended.rounds[0].promoted
    assert words in ended.rounds[0].verdict
    assert champion.read(store) is None
    # A gate that says no has nothing to ask a person.
    if overrides == BREAKS_A_GUARD:
        again = played(night(recipe_for(tiny, overrides), store, play, Asking("run-1", 1)))
        assert again.waiting is None
        assert len(again.rounds) == 2


def test_a_failed_night_goes_on_by_its_plan_and_is_given_up_after_three(tiny: Tiny) -> None:
    store, recipe = opened(tiny), recipe_for(tiny, KEEPS)
    seeds = []

    def fails(context: RoundContext, promotion: Promotion) -> RoundSummary:
        seeds.append(context.seed)
        raise StageFailed("score", "the judge is gone")

    for _ in range(ATTEMPTS + 1):
        with pytest.raises(StageFailed):
            night(recipe, store, fails)
    assert len(set(seeds[:ATTEMPTS])) == 1
    assert seeds[ATTEMPTS] != seeds[0]
    assert champion.read(store) is None
    (series,) = record.nightly(store)
    assert (series.given_up, series.rounds) == (1, ())
    assert series.next is not None
    assert len(series.next.attempts) == 1


def asked(tiny: Tiny, hours: float = 1.0) -> tuple[Store, Series]:
    store = opened(tiny)
    series = played(night(recipe_for(tiny, PROMOTES), store, play, Asking("run-1", hours)))
    assert series.waiting is not None
    summary = read_summary(store, series.waiting.round)
    assert summary.approval is not None
    assert (summary.promoted, summary.approval.answer) == (False, None)
    assert summary.verdict.startswith("Waits for approval by a person. The gate says: Promoted: sharpness")
    assert champion.read(store) is None
    assert nights.asked_by(store, "run-1") == series
    assert nights.asked_by(store, "run-2") is None
    return store, series


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:constrained_layout")  # so few clips leave a chart of the report no room
def test_yes_no_and_no_answer(tiny: Tiny) -> None:
    """One story: a question, a night that must wait for its answer, no answer in time, no, and yes."""
    store, _ = asked(tiny)
    recipe = recipe_for(tiny, PROMOTES)

    def never(context: RoundContext, promotion: Promotion) -> RoundSummary:
        raise AssertionError("a question is open")

    skipped = night(recipe, store, never)
    assert isinstance(skipped, Skipped)
    assert "waits for a person's approval until" in skipped.why

    # Its run is over, so nobody can answer any more: the next night settles it.
    second = played(night(recipe, store, play, Asking("run-2", 1), is_open=lambda waiting: False))
    first = second.rounds[0]
    assert not first.promoted
    assert first.verdict.startswith("Not promoted: nobody approved it in time")
    assert read_summary(store, first.round).model_dump()["approval"]["answer"] == "none"
    assert second.waiting is not None

    said_no = settle(store, second, NO)
    assert (said_no.waiting, said_no.rounds[1].promoted) == (None, False)
    kept = read_summary(store, said_no.rounds[1].round).model_dump()["approval"]
    assert (kept["answer"], kept["who"], kept["reason"]) == ("no", "Ada", "they look frozen")
    assert "Ada said no (they look frozen)" in said_no.rounds[1].verdict
    assert champion.read(store) is None

    third = played(night(recipe, store, play, Asking("run-3", 1)))
    said_yes = settle(store, third, YES)
    newest = said_yes.rounds[2]
    assert newest.promoted
    held = champion.read(store)
    assert held == champion.Champion(str(newest.policy_after), newest.round, "Ada", "the balls land now")
    assert said_yes.champion == newest.policy_after
    page = store.path(f"rounds/{newest.round}").joinpath("report.html").read_text("utf-8")
    assert "Approved by Ada" in page


def crown_by_hand(store: Store, base: str) -> None:
    """Somebody makes a policy champion that no night has seen."""
    media = store.write_media(empty_adapter(base), ".safetensors")
    row = Policy("m7", base, [], "sft", "d1", media.path, media.sha256, 2, 2.0, ["to_q"], 3, "{}", "[]")
    store.commit("finetune", {"stage": "finetune"}, {"policies": [row]}, [media])
    champion.set_champion(store, "m7")


@pytest.mark.slow
def test_a_champion_that_moved_in_the_meantime_is_not_overthrown(tiny: Tiny) -> None:
    store, series = asked(tiny)
    crown_by_hand(store, present(recipe_for(tiny, PROMOTES), store).base_id)
    ended = settle(store, series, YES)
    assert not ended.rounds[0].promoted
    assert "but the champion is m7 by now" in ended.rounds[0].verdict
    assert [one.policy_id for one in champion.history(store)] == ["m7"]


@pytest.mark.slow
def test_so_it_is_for_a_night_that_asks_nobody(tiny: Tiny) -> None:
    store = opened(tiny)

    def overtaken(context: RoundContext, promotion: Promotion) -> RoundSummary:
        crown_by_hand(store, context.policy.base_id)
        return play(context, promotion)

    (one,) = played(night(recipe_for(tiny, PROMOTES), store, overtaken)).rounds
    assert not one.promoted
    assert "but the champion is m7 by now" in one.verdict
    assert [held.policy_id for held in champion.history(store)] == ["m7"]


def test_the_time_of_a_question() -> None:
    def until(**delta: float) -> record.Waiting:
        return record.Waiting("r", "run", (datetime.now(UTC) + timedelta(**delta)).isoformat())

    assert nights.in_time(until(minutes=1))
    assert not nights.in_time(until(minutes=-1))


def test_two_nights_at_once_or_a_night_beside_improve_are_refused(tiny: Tiny) -> None:
    store, recipe = opened(tiny), recipe_for(tiny, KEEPS)
    with store.lock("nightly"), pytest.raises(UserError, match="another `vidloop nightly` works here"):
        night(recipe, store, play)
    with store.lock("improve"), pytest.raises(UserError, match="another `vidloop improve` works here"):
        night(recipe, store, play)
    assert present(recipe, store).adapter_path == ""
