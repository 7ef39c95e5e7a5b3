from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from data import champion
from data.errors import StoreError, UserError
from data.records import Policy
from data.store import Store
from flows.config.load import dump, load_recipe, resolve
from flows.config.recipe import Recipe
from flows.config.resolve import open_round
from flows.reporting.campaign import build_page, table
from flows.rounds.campaign import improve, lineage, plan, planned_clips, present, recipe_of, why_stop
from flows.rounds.plain import plain_round, plain_stage
from flows.rounds.run_round import begin
from models.policy import policy_id
from tasks import campaign_record as record
from tasks import evaluate, finetune
from tasks.campaign_record import Planned, Played, Series
from tasks.context import RoundContext
from tasks.summary import Change, GuardFinding, RoundSummary
from tests.rejudge import rejudge
from tests.tiny_round import Tiny, cached, committed, empty_adapter


def recipe_for(tiny: Tiny, *overrides: str) -> Recipe:
    return load_recipe(str(tiny.recipe), overrides)


def opened(tiny: Tiny) -> Store:
    return Store.open(tiny.store, create=True)


def played(number: int, promoted: bool = False, **fields: Any) -> Played:
    """A round that was played, as a record holds it."""
    guards = {"motion": GuardFinding(before=1.0, after=0.85, ok=True, low=0.8, high=1.25)}
    one = Played(
        number, f"20260101T00000{number}-00000000", number, f"m{number - 1}", f"m{number}", promoted, "a verdict",
        Change(metric="physics", before=0.25, after=0.5, delta=0.25, ci_low=0.125, ci_high=0.375, n=8),
        {"before": (0.1, 0.4), "after": (0.3, 0.7)}, guards, (), None, 100, 60.0,
    )  # fmt: skip
    return replace(one, **fields)


def of(recipe: Recipe, *rounds: Played) -> Series:
    return Series("20260101T000000-00000000", resolve(recipe), "m0", "m0", rounds)


def play_better(context: RoundContext) -> RoundSummary:
    """A real round whose candidate's evaluation clips are then judged anew, all good, and the gate asked again."""
    plain_round(context)
    learned = finetune.candidate(context)
    assert learned is not None
    rejudge(context, evaluate.unit_of(context).sides, {context.policy.policy_id: 0.0, learned.policy_id: 1.0})
    return plain_round(context)


@pytest.mark.slow
def test_champion_to_champion_and_on_after_an_interruption(tiny: Tiny) -> None:
    """One story, because every step needs the one before: a promotion, an interruption, the rest."""
    store = opened(tiny)
    recipe = recipe_for(
        tiny, "improve.rounds=2", "improve.data=aggregated", "improve.prompts_per_round=2", "evaluate.guards=[motion]"
    )  # fmt: skip

    def killed_after_the_promotion(context: RoundContext) -> RoundSummary:
        play_better(context)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        improve(recipe, store, killed_after_the_promotion)
    promoted = champion.history(store)
    assert len(promoted) == 1
    turns = [plain_round]

    def play_until_killed(context: RoundContext) -> RoundSummary:
        if turns:
            return turns.pop()(context)
        plain_stage("generate", context)
        plain_stage("score", context)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        improve(recipe, store, play_until_killed)
    halted = record.unfinished(store, resolve(recipe))
    assert halted is not None
    first, begun = halted.rounds[0], halted.next
    assert begun is not None
    assert champion.history(store) == promoted
    assert first.promoted
    assert promoted[0].policy_id == first.policy_after == halted.champion == begun.policy
    assert (first.seed, begun.number, len(begun.attempts)) == (recipe.seed, 2, 1)

    contexts: list[RoundContext] = []

    def play_on(context: RoundContext) -> RoundSummary:
        contexts.append(context)
        return plain_round(context)

    ended = improve(recipe, store, play_on)
    (context,) = contexts
    second = ended.rounds[1]
    assert (ended.improve, ended.stopped_by, ended.next) == (halted.improve, "rounds", None)
    assert ended.rounds[0] == first
    # The plan was kept: the store knew more when it was read than when it was made.
    assert {job.prompt.prompt_id for job in context.jobs} == set(begun.only or ())
    assert (second.seed, second.policy_before) == (begun.seed, first.policy_after)
    summary = json.loads(store.path(f"rounds/{second.round}/summary.json").read_text())
    assert cached(summary)["generate"] == (4, 4)
    # It learns from both rounds' clips, and is examined on seeds of its own.
    curated = store.manifest(summary["stages"]["curate"]["key"])
    assert curated is not None
    assert (second.learns_from, curated.info["clips"]["total"]) == ((first.round,), 12)
    begun_first = open_round(load_recipe(str(store.path(f"rounds/{first.round}/recipe.json"))), store, "look")
    seeds = [
        {job.seed for _, jobs in one.evaluate.jobs for job in jobs} for one in (begun_first, context)
    ]  # fmt: skip
    assert not seeds[0] & seeds[1]
    # Of the second, whose clips all fail, there is none.
    assert first.intervals["after"] is not None
    assert second.intervals["before"] is None

    # The end compares the champion with the start, on seeds of its own.
    (against,) = ended.reexamined
    assert (against.after, against.start, against.champion) == (2, first.policy_before, first.policy_after)
    assert against.holds
    rows = {row.seed for row in store.read(against.key, "evaluations") if row.metric == "physics"}
    assert len(rows) == against.primary.n == 4
    assert not rows & (seeds[0] | seeds[1])

    # Nothing is left to go on with: the next call begins anew, from the champion.
    assert record.unfinished(store, resolve(recipe)) is None
    page = build_page(store, ended).read_text("utf-8")
    assert first.round in page
    assert "round 1: 0 before, 1 after" in page
    lines = "\n".join(table(ended))
    assert "+1.000 (+0." in lines
    assert "Stopped: all 2 rounds are played" in lines

    # A frozen round is played again, by its recipe alone, from the cache.
    before = committed(tiny.store)
    again = plain_round(begin(load_recipe(str(store.path(f"rounds/{second.round}/recipe.json"))), store))
    assert all(have == total for have, total in cached(again.model_dump()).values())
    assert committed(tiny.store) == before


def crown(store: Store, base: str) -> None:
    """Policy m7, trained from the base, becomes champion."""
    media = store.write_media(empty_adapter(base), ".safetensors")
    row = Policy("m7", base, [], "sft", "d1", media.path, media.sha256, 2, 2.0, ["to_q"], 3, "{}", "[]")
    store.commit("finetune", {"stage": "finetune"}, {"policies": [row]}, [media])
    champion.set_champion(store, "m7")


def test_what_was_trained_already_takes_smaller_steps_if_the_recipe_says_so(tiny: Tiny) -> None:
    recipe, store = recipe_for(tiny, "finetune.lr=8e-4", "improve.later_lr=0.25"), opened(tiny)

    def rate() -> float:
        return recipe_of(recipe, plan(recipe, store, of(recipe))).finetune.lr

    assert rate() == 8e-4  # from the base
    crown(store, present(recipe, store).base_id)
    assert rate() == 2e-4


def test_a_champion_moved_by_another_hand_makes_the_begun_plan_void(tiny: Tiny) -> None:
    store, recipe = opened(tiny), recipe_for(tiny)

    def killed(context: RoundContext) -> RoundSummary:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        improve(recipe, store, killed)
    base = present(recipe, store)
    crown(store, base.base_id)
    assert lineage(store, present(recipe, store)) == ["m7", policy_id(base.base_id)]
    begun: list[str] = []

    def look(context: RoundContext) -> RoundSummary:
        begun.append(context.policy.policy_id)
        raise KeyboardInterrupt

    for _ in range(2):  # the second time its own plan is still good
        with pytest.raises(KeyboardInterrupt):
            improve(recipe, store, look)
    assert begun == ["m7", "m7"]
    kept = record.unfinished(store, resolve(recipe))
    assert kept is not None
    assert kept.next is not None
    assert len(kept.next.attempts) == 2


@pytest.mark.parametrize(
    ("overrides", "rounds", "stopped"),
    [
        (["improve.rounds=2"], [played(1, True)], None),
        (["improve.rounds=2"], [played(1, True), played(2, True)], "rounds"),
        (["improve.patience=2"], [played(1), played(2, True)], None),
        (["improve.patience=2"], [played(1), played(2)], "patience"),
        (["improve.rounds=9", "improve.patience=2"], [played(1), played(2, True), played(3)], None),
        # The tiny recipe: 9 training clips, and 4 for each policy.
        (["improve.max_clips=17"], [], None),
        (["improve.max_clips=16"], [], "clips"),
        (["improve.max_clips=117"], [played(1)], None),
        (["improve.max_clips=116"], [played(1)], "clips"),
        (["improve.max_minutes=1.5"], [played(1)], None),
        (["improve.max_minutes=1.0"], [played(1)], "minutes"),
    ],
)
def test_when_it_stops(tiny: Tiny, overrides: list[str], rounds: list[Played], stopped: str | None) -> None:
    recipe = recipe_for(tiny, *overrides)
    found = why_stop(recipe, of(recipe, *rounds), Planned(9, 1, "m0", None, None, ()))
    assert (found[0] if found else None) == stopped


def test_clips_are_counted_as_they_will_be_made(tiny: Tiny) -> None:
    also = ["evaluate.also=[unseen]", "evaluate.also_clips=50"]
    for more in (["improve.rounds=1"], [], ["evaluate.confirm_clips=7"]):
        recipe, store = recipe_for(tiny, *also, *more), opened(tiny)
        planned = plan(recipe, store, of(recipe))
        context = open_round(recipe_of(recipe, planned), store, "look")
        compared = [*(jobs for _, jobs in context.evaluate.jobs), context.evaluate.confirmation]
        made = len(context.jobs) + 2 * sum(map(len, compared))
        assert planned_clips(recipe, planned) == made


@pytest.mark.parametrize(
    ("overrides", "numbers"),
    [
        ([], []),
        (["improve.data=aggregated"], [1, 2, 3]),
        (["improve.data=windowed"], [3]),
        (["improve.data=windowed", "improve.window=3"], [2, 3]),
        (["improve.data=windowed", "improve.window=1"], []),
        (["improve.data=windowed", "improve.window=9"], [1, 2, 3]),
    ],
)
def test_which_rounds_are_learned_from(tiny: Tiny, overrides: list[str], numbers: list[int]) -> None:
    recipe = recipe_for(tiny, *overrides)
    rounds = [played(number) for number in (1, 2, 3)]
    planned = plan(recipe, opened(tiny), of(recipe, *rounds))
    assert planned.learns_from == tuple(rounds[number - 1].round for number in numbers)
    assert recipe_of(recipe, planned).curate.include_rounds == planned.learns_from


def test_every_round_has_a_seed_of_its_own_and_the_first_shares_its_work_with_a_round(tiny: Tiny) -> None:
    recipe, store = recipe_for(tiny, "seed=3"), opened(tiny)
    plans = [plan(recipe, store, of(recipe, *(played(n) for n in range(1, count + 1)))) for count in range(4)]
    assert len({one.seed for one in plans}) == 4
    first = recipe_of(recipe, plans[0])
    confirmed = recipe.gate.changed(confirm=plans[0].confirm)
    assert first == recipe.model_copy(update={"policy": present(recipe, store).policy_id, "gate": confirmed})


def test_a_recipe_of_a_round_survives_its_own_dump(tiny: Tiny) -> None:
    recipe = recipe_for(tiny, "improve.prompts_per_round=2", "improve.data=aggregated")
    planned = plan(recipe, opened(tiny), of(recipe, played(1)))
    own = recipe_of(recipe, planned)
    (tiny.folder / "own.json").write_text(dump(own))
    assert load_recipe(str(tiny.folder / "own.json")) == own
    assert own.generate.prompt_ids is not None
    assert len(own.generate.prompt_ids) == 2


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("improve.round=3", r"improve\.round: unknown key; did you mean improve\.rounds\?"),
        ("improve.rounds=0", r"improve\.rounds: Input should be greater than or equal to 1"),
        ("improve.data=old", r"improve\.data: Input should be 'fresh', 'aggregated' or 'windowed'"),
        (
            "improve.explore_fraction=1.5",
            r"improve\.explore_fraction: Input should be less than or equal to 1",
        ),
        ("improve.max_minutes=0", r"improve\.max_minutes"),
        ("curate.include_rounds=[../../etc]", r"curate\.include_rounds\.0: String should match pattern"),
        ("curate.include_rounds=[20260101T000000-00000000]", r"holds no round 20260101T000000-00000000"),
        ("generate.prompt_ids=[p1]", r"generate\.prompt_ids: .* holds no prompt 'p1'"),
    ],
)
def test_what_is_wrong_is_said_before_any_work(tiny: Tiny, override: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        open_round(recipe_for(tiny, override), opened(tiny), "look")


def test_only_one_improves_a_store_at_a_time(tiny: Tiny) -> None:
    store = opened(tiny)
    with store.lock("improve"), pytest.raises(UserError, match="another `vidloop improve` works here"):
        improve(recipe_for(tiny), store, plain_round)


def test_a_damaged_record_is_no_reason_to_begin_anew(tiny: Tiny) -> None:
    store, recipe = opened(tiny), recipe_for(tiny)
    record.save(store, of(recipe))
    saved = record.unfinished(store, resolve(recipe))
    assert saved is not None
    path = store.path("improvements/20260101T000000-00000000/summary.json")
    path.write_text(path.read_text()[:-20])
    assert record.unfinished(store, resolve(recipe)) == saved  # by its copy
    path.unlink()
    assert record.unfinished(store, resolve(recipe)) == saved
    path.with_name("summary.copy.json").write_text("{}")
    path.write_text("[]")
    with pytest.raises(StoreError, match=r"cannot read .*summary\.json.*vidloop scrub --heal"):
        improve(recipe, store, plain_round)


def test_records_come_back_as_they_were(tiny: Tiny) -> None:
    store, recipe = opened(tiny), recipe_for(tiny)
    choice = record.Choice(2, 3, 1, 2, 1)
    planned = Planned(2, 7, "m1", ("p1", "p2"), choice, ("r1",), ("r2", "r3"))
    series = replace(of(recipe, played(1, choice=choice, learns_from=("r0",))), next=planned)
    record.save(store, series)
    assert record.unfinished(store, resolve(recipe)) == series
    assert record.unfinished(store, resolve(recipe_for(tiny, "seed=1"))) is None
    record.save(store, replace(series, stopped_by="rounds", reason="all rounds are played"))
    assert record.unfinished(store, resolve(recipe)) is None


def test_a_record_of_an_earlier_release_is_read(tiny: Tiny) -> None:
    store, recipe = opened(tiny), recipe_for(tiny)
    written = record.facts_of(of(recipe, played(1)))
    for later in ("kind", "waiting", "given_up", "drift", "spent", "reexamined", "blocked"):
        del written[later]
    store.write_file(f"improvements/{written['improve']}/summary.json", json.dumps(written).encode())
    assert record.unfinished(store, resolve(recipe)) == of(recipe, played(1))
    assert record.nightly(store) == []


def test_small_steps_down_add_up_to_a_warning(tiny: Tiny) -> None:
    recipe = recipe_for(tiny)
    one = replace(of(recipe, played(1, True)), champion="m1")
    two = replace(of(recipe, played(1, True), played(2), played(3, True, policy_before="m1")), champion="m3")
    assert two.drift()["motion"] == pytest.approx(0.85**2)
    assert not [line for line in table(one) if line.startswith("Warning")]
    assert [
        line
        for line in table(two)
        if line.startswith("Warning: over all promoted rounds motion went to 0.72")
    ]
    # The next candidate is judged by what its predecessors came to; what was rolled back is no predecessor.
    assert (
        recipe_of(recipe, replace(Planned(9, 1, "m3", None, None, ()), drift=two.drift())).gate.drift
        == two.drift()
    )
    assert replace(two, champion="m1").drift() == one.drift()
    assert replace(two, champion="m0").drift() == {}


def test_small_steps_up_add_up_to_a_warning_where_there_is_a_limit(tiny: Tiny) -> None:
    recipe, up = recipe_for(tiny), {"before": 1.0, "after": 1.2, "ok": True, "low": 0.8}
    for limits, warned in (({"high": 1.25}, True), ({}, False), ({"low": None}, False)):
        guards = {"luma": GuardFinding(**up | limits)}
        rounds = played(1, True, guards=guards), played(2, True, guards=guards, policy_before="m1")
        told = "Warning: over all promoted rounds luma went to 1.44"
        lines = table(replace(of(recipe, *rounds), champion="m2"))
        assert any(line.startswith(told) for line in lines) is warned
