"""Best of N as a policy and as a baseline, through whole rounds of the tiny model: sharpness chooses."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from data import champion
from data.errors import ConfigError, StoreError
from data.policies import best_of_id
from data.records import Choice, Clip, Evaluation, Example, Score
from data.store import Store
from flows.config.load import load_recipe
from flows.config.resolve import open_round
from flows.reporting import build_report
from flows.reporting.bundle import write_bundle
from flows.reporting.messages import conclusion, introduction
from flows.reporting.read import read_facts
from flows.rounds.campaign import plan, planned_clips, recipe_of
from flows.rounds.plain import plain_stage
from rewards import Judgement
from tasks import generate, score
from tasks.answers import score_row
from tasks.best_of import preferred
from tasks.campaign_record import Series
from tasks.rounds import read_summary
from tests.tiny_round import Tiny, begun, cached, play

# Clips are chosen by what they are measured with, which the recipe must say: the best then cannot be worse.
BY_METRIC = ("evaluate.metric=sharpness", "evaluate.same_as_feedback=true")
BESIDE = "evaluate.baselines=[{best_of: 2}, {best_of: 3}, {best_of: 2, from: candidate}]"


def rows(store: Path, table: str, stage: str | None = None) -> list[Any]:
    opened = Store.open(store)
    return [row for one in opened.manifests(stage) for row in opened.read(one.key, table)]


def test_of_equals_the_first_id_is_kept_and_what_failed_only_where_all_did() -> None:
    assert preferred([("c2", 1.0), ("c1", 2.0), ("c3", 2.0)]) == "c1"
    assert preferred([("c2", -1.0), ("c1", None)]) == "c2"
    assert preferred([("c2", None), ("c1", None)]) == "c1"


def test_a_clip_that_was_not_judged_is_kept_only_where_none_was_and_that_is_said(
    tiny: Tiny, caplog: pytest.LogCaptureFixture
) -> None:
    context = begun(tiny, "policy={best_of: 2}")
    store, how, (own,) = context.store, context.generation, context.training
    plain_stage("generate", context)
    lists = generate.candidates(how, own)
    # Of the first batch's four jobs: both judged; the first alone; the second alone; none.
    values = [(1.0, 2.0), (1.0, None), (None, 1.0), (None, None)]
    for place, shards in enumerate(lists):
        for unit in score.shards(store, shards, context.choosers):
            clips = sorted(store.read(unit.clips_key, "clips"), key=lambda clip: clip.row_in_batch)
            said = [
                Judgement(pair[place], {}, None if pair[place] is not None else "broken") for pair in values
            ]
            made = [
                score_row(clip.clip_id, unit.rewards[0], one) for clip, one in zip(clips, said, strict=False)
            ]
            store.commit("score", unit.questions[0], {"scores": made}, parents=[unit.clips_key])
    first = score.choices(store, how, own)[0]
    with caplog.at_level("WARNING", "vidloop.tasks"):
        first.run()
    assert "1 of 4 prompts and seeds have no judged clip" in caplog.text
    manifest = store.manifest(first.key)
    assert manifest is not None
    assert manifest.info == {"clips": 4, "candidates": 8, "unjudged": 1}
    choices: dict[str, Choice] = {row.clip_id: row for row in store.read(first.key, "choices")}
    one, two = (
        [
            row.clip_id
            for row in sorted(store.read(shards[0].key, "clips"), key=lambda clip: clip.row_in_batch)
        ]
        for shards in lists
    )
    kept = [row.clip_id for row in store.read(first.key, "clips")]
    assert set(kept) == {two[0], one[1], two[2], min(one[3], two[3])}
    assert choices[two[1]].reason == "left: sharpness did not judge it"
    assert {choices[clip].reason.split(": ", 1)[1] for clip in (one[3], two[3])} == {
        "sharpness judged none of the candidates: the first by clip id stands for them"
    }
    assert all(row.kept == (row.clip_id in kept) for row in choices.values())


def test_a_round_learns_from_the_best_of_n_alone(tiny: Tiny) -> None:
    summary = play(tiny, "policy={best_of: 3, by: sharpness}", "generate.clips_per_prompt=2")
    choices: list[Choice] = rows(tiny.store, "choices")
    clips: dict[str, Clip] = {row.clip_id: row for row in rows(tiny.store, "clips", "generate")}
    scores: list[Score] = rows(tiny.store, "scores", "score")
    values = {row.clip_id: row.value for row in scores if row.reward == "sharpness"}
    groups = defaultdict(list)
    for one in choices:
        groups[one.prompt_id, one.seed].append(one)
        assert one.value == values[one.clip_id]
    assert len(groups) == 3 * 2
    for group in groups.values():
        assert len(group) == 3
        assert len({clips[one.clip_id].seed for one in group}) == 3
        (kept,) = [one for one in group if one.kept]
        assert kept.value == max(one.value for one in group if one.value is not None)
        assert kept.reason.startswith("kept: first by sharpness")
        assert all(one.reason == "left: sharpness prefers another" for one in group if not one.kept)
    best = {one.clip_id for one in choices if one.kept}
    examples: list[Example] = rows(tiny.store, "examples")
    assert {one.clip_id for one in examples} == best
    # The other rewards look at what was kept, and at nothing else of what was made to learn from.
    physics = {row.clip_id for row in scores if row.reward == "physics"}
    assert physics & {one.clip_id for one in choices} == best
    assert summary["policy_before"] == begun(tiny).policy.policy_id
    assert summary["policy_after"] is not None


@pytest.mark.slow
def test_a_larger_n_takes_the_clips_of_a_smaller_one_and_a_plain_round_its_first(tiny: Tiny) -> None:
    play(tiny, "policy={best_of: 2}")
    again = play(tiny, "policy={best_of: 2}")
    assert all(done == units for done, units in cached(again).values())
    made, units = cached(play(tiny, "policy={best_of: 3}"))["generate"]
    assert (made, units) == (2 * units // 3, units)
    plain = cached(play(tiny))
    assert plain["generate"] == (units // 3, units // 3)
    assert plain["curate"] == (0, 1)


@pytest.mark.slow
def test_baselines_are_measured_as_the_candidate_is_and_state_their_cost(tiny: Tiny) -> None:
    plain = play(tiny, *BY_METRIC)
    summary = play(tiny, *BY_METRIC, BESIDE)
    assert {name: summary[name] for name in ("primary", "guards", "verdict", "policy_after")} == {
        name: plain[name] for name in ("primary", "guards", "verdict", "policy_after")
    }
    names = ("best of 2 by sharpness", "best of 3 by sharpness", "best of 2 by sharpness, candidate")
    two, three, after = found = [summary["baselines"].pop(name) for name in names]
    assert not summary["baselines"]
    measured: list[Evaluation] = rows(tiny.store, "evaluations", "evaluate")
    by_policy: dict[str, dict[tuple[str, int], float]] = defaultdict(dict)
    for row in measured:
        if row.metric == "sharpness" and row.value is not None:
            by_policy[row.policy_id][row.prompt_id, row.seed] = row.value
    before, best = by_policy[summary["policy_before"]], by_policy[three["policy"]]
    assert before.keys() == best.keys()
    assert all(best[key] >= by_policy[two["policy"]][key] >= before[key] for key in before)
    for one in found:
        assert one["primary"]["before"] == summary["primary"]["before"]
        gained = one["primary"]["after"] - one["primary"]["before"]
        assert one["primary"]["delta"] == pytest.approx(gained)
        assert one["candidate"]["after"] == summary["primary"]["after"]
        assert one["candidate"]["before"] == one["primary"]["after"]
        assert one["primary"]["ci_low"] < one["primary"]["delta"] < one["primary"]["ci_high"]
        assert one["guards"]["motion"]["after"] is not None
    assert after["sampled"] == summary["policy_after"]
    assert three["policy"] != two["policy"] != after["policy"]
    # 4 clips kept; 2 steps, each twice for guidance; sharpness says one thing of a clip.
    assert three["cost"] == {"kept": 4, "clips": 12, "network_evaluations": 48, "judgements": 12}
    # The first candidates are the clips of the comparison, and 2 of 3 those of 2: 4 clips a batch, 1 batch a set.
    assert len(rows(tiny.store, "clips", "generate")) == 9 + 2 * 4 + 2 * 4 + 1 * 4
    again = play(tiny, *BY_METRIC, BESIDE)
    assert all(done == units for done, units in cached(again).values())


@pytest.mark.slow
def test_terminal_and_report_show_them_with_their_cost(tiny: Tiny) -> None:
    metric = ("evaluate.metric=motion", "evaluate.flow_may_decide=true", "evaluate.same_as_feedback=true")
    beside = "evaluate.baselines=[{best_of: 2, by: motion}]"
    said_so = (*metric, beside, "policy={best_of: 2, by: motion}")
    summary = play(tiny, *said_so)
    context = begun(tiny, *said_so)
    opening = "\n".join(introduction(context))
    assert "9 clips of 3 prompts, each the best of 2 by motion, 6 batches" in opening
    assert "4 heldout prompts, best of 2 by motion" in opening
    said = "\n".join(conclusion(context, read_summary(context.store, summary["round"])))
    assert "best of 2 by motion " in said
    told = "8 clips sampled for 4, 32 passes, 8 judgements"
    assert f"{told}; chosen by the metric itself, which flatters it" in said
    page = build_report(Store.open(tiny.store), summary["round"]).read_text("utf-8")
    assert '<section id="best-of">' in page
    assert told in page
    assert "chosen by the metric itself" in page
    measures = read_facts(context.store, read_summary(context.store, summary["round"])).measures
    assert {one.name for one in measures if one.taught} == {"motion"}  # it chose; sharpness was not measured
    bundle = write_bundle(context.store, summary["round"], tiny.folder / "bundle")
    held = pq.read_table(bundle / "tables/choices.parquet").to_pylist()
    assert len(held) == 2 * 9 + 2 * 4  # of the clips that taught, and of the baseline's
    clips = pq.read_table(bundle / "tables/clips.parquet").column("clip_id").to_pylist()
    assert {one["clip_id"] for one in held} < set(clips)
    play(tiny)
    page = build_report(Store.open(tiny.store)).read_text("utf-8")
    assert "best-of" not in page


def test_a_round_that_learns_nothing_says_that_its_baselines_were_not_measured(tiny: Tiny) -> None:
    summary = play(tiny, *BY_METRIC, BESIDE, "shaping={kind: binary, threshold: 1.0e+9}")
    for one in summary["baselines"].values():
        assert one["primary"]["delta"] is None
        assert one["primary"]["reason"]
        assert one["cost"] is None


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (["evaluate.metric=sharpness", "feedback=physics", "policy={best_of: 2, by: sharpness}"], "same_as_feedback"),
        (
            ["evaluate.metric=sharpness", "feedback=physics", "evaluate.baselines=[{best_of: 2, by: sharpness}]"],
            "same_as_feedback",
        ),
        (["policy={best_of: 2, by: nobody}"], "policy.by: there is no reward 'nobody'"),
        (["policy={best_of: 2, from: candidate}"], "only a baseline's"),
        (["policy={best_of: 1}"], "policy.best_of"),
        (["policy={best_of: 2, of: base}"], "policy.of: unknown key"),
        (["evaluate.baselines=[{best_of: 2, frm: base}]"], "did you mean evaluate.baselines.0.from"),
        (["evaluate.baselines=[{best_of: 2}, {best_of: 2}]"], "names one twice"),
        (["rewards=[physics, sharpness, composite]", "composite={components: {sharpness: {weight: 1.0}}}",
          "policy={best_of: 2, by: composite}"], "mixture"),
    ],
)  # fmt: skip
def test_what_is_refused(tiny: Tiny, said: list[str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        load_recipe(str(tiny.recipe), said)


def test_two_names_of_one_policy_are_one_baseline(tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match="names one twice"):
        begun(tiny, "evaluate.baselines=[{best_of: 2, from: base}, {best_of: 2}]")


def test_no_best_of_policy_is_a_champion_or_a_start(tiny: Tiny) -> None:
    store = begun(tiny).store
    name = best_of_id("m1", 8, "judge", "v1")
    with pytest.raises(StoreError, match="no adapter that could be champion"):
        champion.set_champion(store, name)
    with pytest.raises(ConfigError, match="no adapter to start from"):
        begun(tiny, f"policy={name}")


def test_a_round_that_has_begun_keeps_its_policies_when_the_champion_moves(tiny: Tiny) -> None:
    first = play(tiny)
    store = Store.open(tiny.store)
    champion.set_champion(store, first["policy_after"])
    said = (
        "policy={best_of: 2, from: champion}",
        "evaluate.baselines=[{best_of: 2, from: champion}, {best_of: 2, from: base}]",
    )
    context = begun(tiny, *said)
    assert context.policy.policy_id == first["policy_after"]
    champion.rollback(store)
    recipe = load_recipe(str(tiny.store / "rounds" / context.run_id / "recipe.json"))
    later = replace(open_round(recipe, store, context.run_id), recipe=context.recipe)
    assert later == context
    assert [one.name for one in context.evaluate.baselines] == [
        "best of 2 by sharpness", "best of 2 by sharpness, base"
    ]  # fmt: skip


def test_rounds_in_a_row_keep_choosing_and_count_what_they_sample(tiny: Tiny) -> None:
    said = ("policy={best_of: 3, from: base}", BESIDE)
    recipe, store = load_recipe(str(tiny.recipe), said), begun(tiny).store
    planned = plan(recipe, store, Series("i", {}, "m", "m"))
    own = recipe_of(recipe, planned)
    context = open_round(own, store, "look")
    assert context.best_of is not None
    assert (own.start, context.best_of.n) == (planned.policy, 3)
    # 9 clips to learn from, 4 to compare a policy by, 4 to confirm it; two more and one more candidate of each.
    assert planned.confirm is not None
    assert planned_clips(own, planned) == 3 * 9 + 2 * (4 + 4) + 2 * 4 + 1 * 4


@pytest.mark.slow
def test_an_earlier_round_lends_the_clips_that_it_kept(tiny: Tiny) -> None:
    first = play(tiny, "policy={best_of: 2}")
    kept = {one.clip_id for one in rows(tiny.store, "choices") if one.kept}
    context = begun(tiny, f"curate.include_rounds=[{first['round']}]", "seed=5")
    assert len(generate.units(context)) == 3 + 2 * 3
    play(tiny, f"curate.include_rounds=[{first['round']}]", "seed=5")
    learned = {row.clip_id for row in rows(tiny.store, "examples")}
    assert kept < learned
    assert not {one.clip_id for one in rows(tiny.store, "choices") if not one.kept} & learned


def test_the_best_of_each_prompt_is_what_accept_fraction_takes(tiny: Tiny) -> None:
    """SFT on the best of N asks for no policy: N clips a prompt, of which the share 1/N is accepted."""
    graded = ("shaping={kind: graded, threshold: null, eta: 1.0e-6, gamma: 0.0}", "finetune.objective=sft")
    play(tiny, *graded, "generate.clips_per_prompt=3", "curate.accept_fraction=0.33")
    examples: list[Example] = rows(tiny.store, "examples")
    best = defaultdict(list)
    for one in examples:
        best[one.prompt_id].append((one.reward, one.clip_id))
    accepted = {one.clip_id for one in examples if one.accepted}
    assert accepted == {max(group)[1] for group in best.values()}
    assert len(accepted) == 3
