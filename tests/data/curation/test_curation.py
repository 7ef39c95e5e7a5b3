import math
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from data.curation import CurateSettings, curate, labels
from data.errors import ConfigError, StoreError, UserError
from data.records import Example, Score


@pytest.fixture
def scored(commit, make_clip, make_score):
    """Commit clips and scores: {prompt: [value or None, ...]}; returns (clip keys, score keys)."""

    def make(values, reward="physics", name="", categories=None):
        clips, scores = [], []
        for prompt, row in values.items():
            for i, value in enumerate(row):
                clip_id = f"{prompt}-{i}"
                clips.append(
                    make_clip(
                        clip_id, prompt_id=prompt, category=(categories or {}).get(prompt, "falling down")
                    )
                )
                scores.append(make_score(clip_id, value, reward))
        return [commit("generate", name, clips=clips).key], [commit("score", name, scores=scores).key]

    return make


def run(store, keys, **fields):
    return curate(store, *keys, CurateSettings(**{"feedback": "physics", "pairs_per_prompt": 100} | fields))


def accepted(result):
    return sorted(example.clip_id for example in result.examples if example.accepted)


def weights(result):
    return {example.clip_id: example.weight for example in result.examples}


def test_binary_feedback_pairs_what_passed_with_what_failed(store, scored):
    result = run(store, scored({"a": [1, 0, 1, 0], "b": [0, 1]}))
    assert accepted(result) == ["a-0", "a-2", "b-1"]
    assert {(pair.chosen, pair.rejected) for pair in result.pairs} == {
        ("a-0", "a-1"), ("a-0", "a-3"), ("a-2", "a-1"), ("a-2", "a-3"), ("b-1", "b-0"),
    }  # fmt: skip
    assert {pair.margin for pair in result.pairs} == {1.0}
    assert weights(result) == {"a-0": 1, "a-1": 0, "a-2": 1, "a-3": 0, "b-0": 0, "b-1": 1}
    assert {example.clip_id: example.reason for example in result.examples if example.prompt_id == "b"} == {
        "b-0": "rejected: below threshold", "b-1": "accepted: passed",
    }  # fmt: skip
    assert result.report["outcome"] == "3 of 6 clips accepted; 5 pairs from 2 of 2 prompts"
    assert result.report["pairs"] == {"formed": 5, "possible": 5, "dropped_ties": 2, "dropped_limit": 0}
    assert result.report["weights"] == {"sum": 3.0, "effective_sample_size": 3.0}
    assert {row.curation_id for row in [*result.examples, *result.pairs]} == {result.curation_id}


def test_a_threshold_is_passed_by_reaching_it(store, scored):
    assert accepted(run(store, scored({"a": [0.5, 0.49999]}), threshold=0.5)) == ["a-0"]


def test_pairs_of_a_prompt_are_spread_over_its_clips(store, scored):
    keys = scored({"a": [1] * 4 + [0] * 6})
    for limit in (1, 3, 4, 8, 24):
        pairs = run(store, keys, pairs_per_prompt=limit).pairs
        assert len(pairs) == limit
        chosen, rejected = (Counter(getattr(pair, side) for pair in pairs) for side in ("chosen", "rejected"))
        assert max(chosen.values()) == math.ceil(limit / 4)
        assert max(rejected.values()) <= math.ceil(limit / 4)
    assert (
        run(store, keys, pairs_per_prompt=3, seed=1).pairs
        != run(store, keys, pairs_per_prompt=3, seed=2).pairs
    )
    report = run(store, keys, pairs_per_prompt=3).report
    assert report["pairs"] == {"formed": 3, "possible": 24, "dropped_ties": 15 + 6, "dropped_limit": 21}


@pytest.mark.parametrize(
    ("values", "outcome", "reason"),
    [
        ({"a": [0, 0], "b": [0]}, "nothing to learn from: all 3 clips were rejected", "rejected: all clips of this prompt failed"),
        ({"a": [1, 1], "b": [1]}, "3 of 3 clips accepted; no pairs: every clip passed", "accepted: all clips of this prompt passed"),
        ({"a": [None, None]}, "nothing to learn from: no clip has a score", None),
        ({}, "nothing to learn from: no clip has a score", None),
    ],
)  # fmt: skip
def test_nothing_to_compare_is_an_outcome(store, scored, values, outcome, reason):
    for weight in ("uniform", "reward", "exp"):
        result = run(store, scored(values), weight=weight)
        assert result.pairs == []
        assert result.report["outcome"] == outcome
        assert {example.reason for example in result.examples} == ({reason} if reason else set())
        assert all(math.isfinite(example.weight) for example in result.examples)


def test_all_clips_of_one_prompt_alike_is_counted(store, scored):
    prompts = run(store, scored({"a": [1, 1], "b": [0, 0], "c": [1, 0], "d": [None], "e": [1, None]})).report[
        "prompts"
    ]
    assert prompts == {"total": 5, "scored": 4, "usable": 1, "all_passed": 2, "all_failed": 1}


def test_a_failed_judgement_is_never_a_number(store, commit, make_clip, make_score):
    clips = commit("generate", clips=[make_clip(f"c{i}") for i in range(4)])
    scores = commit("score", scores=[make_score("c0", 1), make_score("c1", 0), make_score("c2", None)])
    for kind in ({}, {"kind": "graded"}, {"weight": "exp"}):
        result = run(store, ([clips.key], [scores.key]), **kind)
        assert [example.clip_id for example in result.examples] == ["c0", "c1"]
        assert {clip for pair in result.pairs for clip in (pair.chosen, pair.rejected)} <= {"c0", "c1"}
        assert result.report["clips"] == {"total": 4, "scored": 2, "passed": 1, "accepted": 1, "unscored": 2}
        assert result.report["unscored_reasons"] == {"cannot be decoded": 1, "not judged": 1}


def test_graded_feedback_is_a_line_between_two_percentiles(store, scored):
    values = [i / 100 for i in range(101)]
    result = run(
        store,
        scored({"a": values}, "clip"),
        feedback="clip",
        kind="graded",
        threshold=None,
        accept_fraction=0.25,
    )
    assert result.report["shaping"]["gamma"] == pytest.approx(0.05)
    assert result.report["shaping"]["eta"] == pytest.approx(1 / 0.9)
    shaped = {example.clip_id: example.reward for example in result.examples}
    assert [shaped[f"a-{i}"] for i in (0, 5, 50, 95, 100)] == pytest.approx([0, 0, 0.5, 1, 1])
    assert len(accepted(result)) == 25
    assert min(shaped[clip] for clip in accepted(result)) > max(
        shaped[example.clip_id] for example in result.examples if not example.accepted
    )
    reasons = {example.clip_id: example.reason for example in result.examples}
    assert reasons["a-0"] == "rejected: below gamma"
    assert reasons["a-50"] == "rejected: not in the top 25 of 101"
    assert reasons["a-76"].startswith("accepted: rank ")


def test_graded_settings_are_used_as_given(store, scored):
    keys = scored({"a": [1.0, 2.0, 3.0, 4.0]}, "flow")
    result = run(
        store, keys, feedback="flow", kind="graded", eta=0.5, gamma=2.0, accept_fraction=0.5, threshold=None
    )
    assert [example.reward for example in result.examples] == [0, 0, 0.5, 1]
    assert accepted(result) == ["a-2", "a-3"]


def test_the_acceptance_rate_of_the_binary_labels_is_the_top_share(store, scored):
    keys = scored({"a": [0.9, 0.8, 0.7, 0.1], "b": [0.6, 0.3, 0.2, 0.1]}, "judge")
    result = run(store, keys, feedback="judge", kind="graded", threshold=0.5)
    assert result.report["shaping"]["accept_fraction"] == 0.5
    assert accepted(result) == ["a-0", "a-1", "b-0", "b-1"]
    assert (
        run(store, keys, feedback="judge", kind="graded", threshold=0.5, accept_fraction=0.25).report[
            "clips"
        ]["accepted"]
        == 2
    )


def test_a_share_below_one_clip_still_accepts_the_best_clip(store, scored):
    keys = scored({"a": [0.9, 0.1, 0.2], "b": [0.3, 0.8]}, "judge")
    assert accepted(
        run(store, keys, feedback="judge", kind="graded", threshold=None, accept_fraction=0.1)
    ) == [
        "a-0",
        "b-1",
    ]


def test_graded_values_that_are_all_the_same_teach_nothing(store, scored):
    result = run(
        store,
        scored({"a": [0.3] * 4}, "clip"),
        feedback="clip",
        kind="graded",
        threshold=None,
        accept_fraction=0.5,
    )
    assert result.report["clips"]["accepted"] == 0
    assert result.pairs == []
    assert result.report["shaping"]["eta"] == 0.0


def test_graded_pairs_exceed_the_margin(store, scored):
    keys = scored({"a": [0.0, 0.25, 0.5, 1.0]}, "clip")
    fields = {
        "feedback": "clip",
        "kind": "graded",
        "eta": 1.0,
        "gamma": 0.0,
        "accept_fraction": 0.5,
        "threshold": None,
    }
    result = run(store, keys, margin=0.25, **fields)
    assert {(pair.chosen, pair.rejected, pair.margin) for pair in result.pairs} == {
        ("a-3", "a-0", 1.0), ("a-3", "a-1", 0.75), ("a-3", "a-2", 0.5), ("a-2", "a-0", 0.5),
    }  # fmt: skip
    assert result.report["pairs"]["dropped_ties"] == 2
    assert len(run(store, keys, **fields).pairs) == 6


def test_most_clips_of_a_prompt(store, scored):
    result = run(store, scored({"a": [1, 1, 1, 0]}), max_per_prompt=2)
    assert len(accepted(result)) == 2
    assert Counter(example.reason for example in result.examples) == {
        "accepted: passed": 2, "rejected: beyond max_per_prompt": 1, "rejected: below threshold": 1,
    }  # fmt: skip


def test_weights_of_reward_weighted_regression(store, scored):
    keys = scored({"a": [1.0, 0.5, 0.0], "b": [0.5, 0.5]}, "judge")
    fields = {
        "feedback": "judge",
        "kind": "graded",
        "eta": 1.0,
        "gamma": 0.0,
        "accept_fraction": 0.5,
        "threshold": None,
    }
    assert weights(run(store, keys, weight="reward", **fields)) == {
        "a-0": 1.0,
        "a-1": 0.5,
        "a-2": 0.0,
        "b-0": 0.5,
        "b-1": 0.5,
    }
    beta = 0.25
    z = (math.exp(1 / beta) + math.exp(0.5 / beta) + 1) / 3
    result = run(store, keys, weight="exp", beta=beta, **fields)
    assert weights(result) == pytest.approx(
        {"a-0": math.exp(1 / beta) / z, "a-1": math.exp(0.5 / beta) / z, "a-2": 1 / z, "b-0": 1.0, "b-1": 1.0}
    )
    held = list(weights(result).values())
    assert result.report["weights"]["effective_sample_size"] == pytest.approx(
        sum(held) ** 2 / sum(w * w for w in held)
    )
    # A temperature at which exp(1 / beta) is no longer a number gives all the weight to the best clip.
    cold = weights(run(store, keys, weight="exp", beta=1e-4, **fields))
    assert cold == pytest.approx({"a-0": 3, "a-1": 0, "a-2": 0, "b-0": 1, "b-1": 1})


def test_the_report_says_what_each_category_gave(store, scored):
    keys = scored({"a": [1, 0, None], "b": [0, 0]}, categories={"a": "falling down", "b": "object removal"})
    assert run(store, keys).report["by_category"] == {
        "falling down": {"clips": 2, "passed": 1, "accepted": 1, "pairs": 1},
        "object removal": {"clips": 2, "passed": 0, "accepted": 0, "pairs": 0},
    }


def test_several_units_give_what_one_gives_whatever_their_order(store, commit, make_clip, make_score):
    clips = [make_clip(f"c{i}", prompt_id=f"p{i % 2}") for i in range(8)]
    scores = [make_score(f"c{i}", float(i // 2 % 2)) for i in range(8)]
    split = [commit("generate", clips=clips[:3]).key, commit("generate", clips=clips[3:]).key]
    marks = [commit("score", scores=scores[5:]).key, commit("score", scores=scores[:5]).key]
    one = run(store, ([commit("generate", clips=clips).key], [commit("score", scores=scores).key]))
    several = run(store, (split, marks))
    assert run(store, (split[::-1], marks[::-1])) == several
    without = [(p.chosen, p.rejected) for p in one.pairs]
    assert [(p.chosen, p.rejected) for p in several.pairs] == without
    assert one.report == several.report
    assert one.curation_id != several.curation_id


def test_a_clip_that_two_units_hold_counts_once(store, commit, make_clip, make_score):
    first = commit("generate", clips=[make_clip("c0"), make_clip("c1")]).key
    second = commit("evaluate", clips=[make_clip("c0")]).key
    scores = [
        commit("score", "x", scores=[make_score("c0", 1), make_score("c1", 0)]).key,
        commit("score", "y", scores=[make_score("c0", 1)]).key,
    ]
    assert len(run(store, ([first, second], scores)).examples) == 2


def test_other_rewards_are_left_alone_and_versions_not_mixed(store, commit, make_clip, make_score):
    clips = [commit("generate", clips=[make_clip("c0"), make_clip("c1")]).key]
    physics = commit("score", "physics", scores=[make_score("c0", 1), make_score("c1", 0)]).key
    other = commit("score", "clip", scores=[make_score("c0", 0.1, "clip"), make_score("c1", 0.9, "clip")]).key
    newer = commit("score", "newer", scores=[make_score("c0", 0, version="v2")]).key
    assert accepted(run(store, (clips, [physics, other]))) == ["c0"]
    with pytest.raises(UserError, match="2 versions of 'physics' are mixed"):
        run(store, (clips, [physics, newer]))
    with pytest.raises(
        UserError, match=r"no clip was scored by the feedback 'flow' \(scored by: clip, physics\)"
    ):
        run(store, (clips, [physics, other]), feedback="flow")
    with pytest.raises(StoreError, match="holds no unit"):
        run(store, (clips, ["0" * 64]))


@pytest.mark.parametrize("mode", ["fast: taylorseer interval 2 warmup 4 order 1", "weights: fp8-storage"])
def test_exact_clips_and_others_are_not_mixed(store, commit, make_clip, make_score, mode):
    exact, other = "UniPCMultistepScheduler", f"UniPCMultistepScheduler, {mode}"
    scores = [make_score(f"c{i}", i % 2, "physics") for i in range(4)]
    key = commit("score", "s", scores=scores).key

    def clips(name, *samplers):
        rows = [make_clip(f"c{i}", sampler=sampler) for i, sampler in enumerate(samplers)]
        return commit("generate", name, clips=rows).key

    mixed = clips("mixed", exact, other, exact, other)
    with pytest.raises(UserError, match=rf"modes are mixed \(exact; {mode}\)"):
        run(store, ([mixed], [key]))
    for name, sampler in (("exact", exact), ("other", other)):
        assert run(store, ([clips(name, *[sampler] * 4)], [key])).pairs


def test_settings_decide_the_id(store, scored):
    keys = scored({"a": [1, 0]})
    known = tuple([store.manifest(key).digest] for (key,) in keys)
    settings = CurateSettings(feedback="physics", pairs_per_prompt=100)
    assert curate(store, *keys, settings, digests=known) == run(store, keys)
    assert curate(store, *keys, settings, digests=known[::-1]).curation_id != run(store, keys).curation_id
    assert run(store, keys).curation_id == run(store, keys).curation_id
    assert run(store, keys).curation_id != run(store, keys, margin=0.2).curation_id


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "ternary"}, {"weight": "square"}, {"threshold": None}, {"kind": "graded", "threshold": None},
        {"threshold": math.nan}, {"gamma": math.inf}, {"eta": 0.0}, {"eta": -1.0}, {"pairs_per_prompt": -1},
        {"margin": 1.0}, {"margin": -0.1}, {"accept_fraction": 0.0}, {"accept_fraction": 1.5}, {"max_per_prompt": 0}, {"beta": 0.0},
        {"beta": math.nan},
    ],
)  # fmt: skip
def test_wrong_settings_name_their_key(wrong):
    with pytest.raises((ValidationError, ConfigError), match=list(wrong)[-1]):
        CurateSettings(feedback="physics", **wrong)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.dictionaries(
        st.sampled_from("abcd"),
        st.lists(st.none() | st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]), max_size=6),
        max_size=4,
    ),
    kind=st.sampled_from(["binary", "graded"]),
    weight=st.sampled_from(["uniform", "reward", "exp"]),
    margin=st.sampled_from([0.0, 0.3]),
    limit=st.integers(0, 5),
    most=st.none() | st.integers(1, 3),
)
def test_what_always_holds(store, scored, values, kind, weight, margin, limit, most):
    fields = {
        "kind": kind,
        "weight": weight,
        "margin": margin,
        "pairs_per_prompt": limit,
        "max_per_prompt": most,
    }
    keys = scored(values)
    result = run(store, keys, **fields)
    assert run(store, keys, **fields) == result
    scores = {f"{p}-{i}": v for p, row in values.items() for i, v in enumerate(row) if v is not None}
    assert {example.clip_id for example in result.examples} == set(scores)
    for example in result.examples:
        assert 0 <= example.reward <= 1
        assert example.weight >= 0
        assert example.reason.startswith("accepted: " if example.accepted else "rejected: ")
        if example.accepted:
            assert example.reward > 0
    assert max(Counter(e.prompt_id for e in result.examples if e.accepted).values(), default=0) <= (
        most or 99
    )
    rewards = {example.clip_id: example.reward for example in result.examples}
    prompts = {example.clip_id: example.prompt_id for example in result.examples}
    assert len({(pair.chosen, pair.rejected) for pair in result.pairs}) == len(result.pairs)
    for pair in result.pairs:
        assert pair.margin == rewards[pair.chosen] - rewards[pair.rejected] > margin
        assert prompts[pair.chosen] == prompts[pair.rejected] == pair.prompt_id
    for prompt in values:
        clips = [clip for clip in scores if prompts[clip] == prompt]
        possible = sum(rewards[good] - rewards[bad] > margin for good in clips for bad in clips)
        assert sum(pair.prompt_id == prompt for pair in result.pairs) == min(limit, possible)
    if weight == "exp":
        for prompt in {prompts[clip] for clip in scores}:
            held = [example.weight for example in result.examples if example.prompt_id == prompt]
            assert sum(held) / len(held) == pytest.approx(1)


def test_a_score_that_is_not_finite_cannot_even_be_made():
    with pytest.raises(ValueError, match="finite"):
        Score("c0", "physics", "v1", math.nan, "ok", None, "{}")


def test_a_clip_that_lost_by_lot_is_no_example_of_what_to_avoid() -> None:
    def one(clip: str, prompt: str, reward: float, accepted: bool) -> Example:
        return Example("d", clip, prompt, "falling down", reward, 1.0, accepted, "")

    rows = [
        one("a", "p", 1.0, True),
        one("b", "p", 1.0, False),  # beyond max_per_prompt: as good as a
        one("c", "p", 0.0, False),
        one("d", "q", 1.0, False),  # its prompt accepted nothing
    ]
    assert labels(rows) == [True, None, False, False]
    assert labels([]) == []


def test_of_two_judges_of_one_kind_only_the_version_that_teaches_is_read(store, scored, commit, make_score):
    clips, first = scored({"a": [1, 0], "b": [0, 1]})
    other = [
        make_score(clip, 1 - value, version="v2")
        for clip, value in (("a-0", 1), ("a-1", 0), ("b-0", 0), ("b-1", 1))
    ]
    keys = [*first, commit("score", "other", scores=other).key]
    settings = CurateSettings(feedback="physics", pairs_per_prompt=100)
    assert accepted(curate(store, clips, keys, settings, "v1")) == ["a-0", "b-1"]
    assert accepted(curate(store, clips, keys, settings, "v2")) == ["a-1", "b-0"]
    with pytest.raises(ConfigError, match="2 versions of 'physics' are mixed"):
        curate(store, clips, keys, settings)
    with pytest.raises(ConfigError, match="no clip was scored by the feedback"):
        curate(store, clips, keys, settings, "v3")
