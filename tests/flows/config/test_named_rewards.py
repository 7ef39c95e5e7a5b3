"""Rewards under names of one's own: every form of saying them, and what they are called afterwards."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml

from data.errors import UserError
from flows.config.load import check, dump, load_recipe, resolve
from flows.config.recipe import Recipe
from flows.config.rewards import kind_of

BASE: dict[str, Any] = {"name": "x", "model": {"family": "wan", "path": "m"}, "feedback": "clip"}
TWO: dict[str, Any] = BASE | {
    "rewards": {
        "teacher": {"kind": "judge", "model": "a", "backend": "vllm"},
        "examiner": {"kind": "judge", "model": "b"},
        "physics": {},
    },
    "score": {"rewards": ["teacher", "physics"]},
    "feedback": "teacher",
    "evaluate": {"metric": "examiner"},
}


@pytest.fixture
def load(tmp_path: Path) -> Any:
    def read(tree: dict[str, Any], *overrides: str) -> Recipe:
        (tmp_path / "r.yaml").write_text(yaml.safe_dump(tree))
        return load_recipe(str(tmp_path / "r.yaml"), overrides)

    return read


def settings(recipe: Recipe, name: str) -> Any:
    return recipe.rewards[name]


def test_the_short_form_is_each_kind_under_its_own_name_with_its_defaults(load: Any) -> None:
    short = load(BASE | {"rewards": ["clip", "flow"]})
    assert short == load(BASE | {"rewards": {"clip": {}, "flow": {"kind": "flow"}}})
    assert short == load(BASE | {"rewards": {"clip": None, "flow": None}})
    assert [kind_of(one) for one in short.rewards.values()] == ["clip", "flow"]
    assert short.scored == ["clip", "flow"]


def test_settings_at_the_top_and_set_reach_the_reward(load: Any) -> None:
    tree = BASE | {"rewards": ["clip", "flow"], "clip": {"frames": 3, "batch_size": 7}}
    recipe = load(tree, "clip.frames=4", "rewards.flow.stride=5", "rewards.clip.precision=bf16")
    clip = settings(recipe, "clip")
    assert (clip.frames, clip.batch_size, clip.precision) == (4, 7, "bf16")
    assert settings(recipe, "flow").stride == 5


@pytest.mark.parametrize(
    "said",
    [
        "rewards.clip.frames=4",
        "rewards.clip={frames: 4}",
        "rewards={clip: {frames: 4}, flow: {}}",
        "clip.frames=4",
        "clip={frames: 4}",
    ],
)
def test_what_is_set_wins_however_the_file_and_the_option_say_it(load: Any, said: str) -> None:
    """A file may say it in a block of the reward's name, or below `rewards`; so may an option."""
    for tree in (
        {"rewards": ["clip", "flow"], "clip": {"frames": 3}},
        {"rewards": {"clip": {"frames": 3}, "flow": {}}},
        {"rewards": {"clip": {"frames": 2}, "flow": {}}, "clip": {"frames": 3}},
    ):
        assert settings(load(BASE | tree, said), "clip").frames == 4


def test_two_rewards_of_one_kind_keep_apart_what_they_say_themselves(load: Any) -> None:
    recipe = load(TWO | {"judge": {"concurrency": 3, "backend": "local"}})
    teacher, examiner = settings(recipe, "teacher"), settings(recipe, "examiner")
    assert (teacher.model, teacher.backend, teacher.concurrency) == ("a", "vllm", 3)
    assert (examiner.model, examiner.backend, examiner.concurrency) == ("b", "local", 3)
    both = load(TWO, "judge.backend=local")  # as scripts say it
    assert settings(both, "teacher").backend == settings(both, "examiner").backend == "local"
    one = load(TWO, "rewards.teacher.backend=local")
    assert (settings(one, "teacher").backend, settings(one, "examiner").backend) == ("local", "vllm")
    also = load(TWO | {"teacher": {"backend": "local"}})
    assert settings(also, "teacher").backend == "local"


def test_what_is_not_named_is_the_kind_with_what_the_top_says_and_teaches_nobody(load: Any) -> None:
    recipe = load(BASE | {"rewards": ["clip"], "judge": {"model": "j"}, "evaluate": {"metric": "judge"}})
    assert recipe.scored == ["clip"]
    assert settings(recipe, "judge").model == "j"
    assert kind_of(recipe.reward(recipe.evaluate.metric)) == "judge"
    assert kind_of(recipe.reward("sharpness")) == "sharpness", "a guard that nobody names"


def test_a_resolved_recipe_says_it_all_and_is_read_back(load: Any) -> None:
    recipe = load(TWO)
    said = resolve(recipe)["rewards"]["examiner"]
    assert (said["kind"], said["model"], said["max_model_len"]) == ("judge", "b", 2048)
    assert check(Recipe, resolve(recipe), "x") == recipe
    assert load(yaml.safe_load(dump(recipe))) == recipe
    assert pickle.loads(pickle.dumps(recipe)) == recipe


def test_oracle_is_physics_where_it_teaches(load: Any) -> None:
    recipe = load(BASE | {"rewards": ["physics"], "feedback": "oracle", "evaluate": {"metric": "sharpness"}})
    assert recipe.teacher == "physics"


def test_a_former_key_still_works_and_says_what_it_is_called_now(
    load: Any, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = load(TWO | {"judge": {"max_tokens": 4096}})
    assert "judge.max_tokens is now called judge.max_model_len" in caplog.text
    assert settings(recipe, "teacher").max_model_len == 4096


@pytest.mark.parametrize(
    ("changes", "overrides", "message"),
    [
        ({"rewards": {"mine": {}}}, (), "rewards.mine: say which kind of reward it is"),
        ({"rewards": {"mine": {"kind": "clop"}}}, (), "there is no reward 'clop'; did you mean 'clip'"),
        ({"rewards": {"clip": {"kind": "flow"}}}, (), "'clip' is the name of a kind"),
        ({"rewards": {"oracle": {"kind": "clip"}}}, (), "'oracle' is the name of something else"),
        ({"rewards": {"curate": {"kind": "clip"}}}, (), "'curate' is the name of something else"),
        ({"rewards": {"a.b": {"kind": "clip"}}}, (), "'a.b' is no name"),
        ({"rewards": {"clip": {"frame": 3}}}, (), "rewards.clip.frame: unknown key; did you mean rewards.clip.frames"),
        ({"rewards": ["clip"], "clip": {"frame": 3}}, (), "clip.frame: unknown key; did you mean clip.frames"),
        ({"rewards": ["clip"]}, ("clip.frame=3",), "--set clip.frame: unknown key; did you mean clip.frames"),
        ({"rewards": ["clip"], "clip": 3}, (), "clip: expected settings of a reward"),
        ({"rewards": ["clip"], "clipp": {}}, (), "clipp: unknown key; did you mean clip"),
        ({"rewards": ["clip"], "score": {"rewards": ["clop"]}}, (), "score.rewards: there is no reward 'clop'"),
        ({"rewards": ["clip"], "evaluate": {"guards": ["still"]}}, (), "evaluate.guards: there is no reward 'still'"),
        (
            {"rewards": ["clip"], "gate": {"limits": {"motoin": {"low": 0.5}}}},
            (),
            "gate.limits names 'motoin', which evaluate.guards does not list; did you mean 'motion'?",
        ),
        ({"rewards": ["clip"]}, ("gate.limits.motion.hgih=2",), "gate.limits.motion.hgih: unknown key; did you mean"),
        ({"rewards": ["flow", "clip"], "score": {"rewards": ["flow"]}}, (), "learns from the reward 'clip'"),
        (
            {"rewards": {"clip": {}, "other": {"kind": "clip", "batch_size": 3}}, "evaluate": {"metric": "other"}},
            (),
            "not judged by its own teacher",
        ),
    ],
)  # fmt: skip
def test_what_does_not_hang_together_says_why(
    load: Any, changes: dict[str, Any], overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        load(BASE | changes, *overrides)
    assert message in str(caught.value)


@pytest.mark.parametrize("kind", ["flow", "motion"])
def test_what_any_motion_raises_decides_only_on_purpose(load: Any, kind: str) -> None:
    tree = BASE | {"rewards": {"clip": {}, "mine": {"kind": kind}}, "evaluate": {"metric": "mine"}}
    with pytest.raises(UserError, match=r"'mine' measures how much moves.*evaluate\.flow_may_decide: true"):
        load(tree)
    assert load(tree, "evaluate.flow_may_decide=true").evaluate.metric == "mine"
    reported = load(tree, "evaluate.metric=judge", "judge.model=j")
    assert reported.scored == ["clip", "mine"], "as a reward beside others it is welcome"


@pytest.mark.parametrize(
    "examiner",
    [
        {
            "model": "hf-hub:o/a",
            "revision": "1" * 40,
            "rubric": "mine.yaml",
            "dtype": "bfloat16",
            "backend": "local",
        },
        {"model": "hf-hub:o/a", "rubric": "mine.yaml"},
    ],
)
def test_a_judge_of_the_teachers_weights_examines_only_on_purpose(
    load: Any, examiner: dict[str, str]
) -> None:
    teacher = {"kind": "judge", "model": "hf-hub:o/a", "revision": "1" * 40}
    tree = TWO | {
        "rewards": {"teacher": teacher, "examiner": {"kind": "judge", **examiner}},
        "score": {"rewards": ["teacher"]},
    }
    with pytest.raises(
        UserError, match=r"'examiner' is of the same weights as 'teacher'.*same_as_feedback: true"
    ):
        load(tree)
    assert load(tree, "evaluate.same_as_feedback=true").evaluate.metric == "examiner"
    load(tree, "rewards.examiner.model=hf-hub:o/b")
    load(tree, f"rewards.examiner.revision={'2' * 40}")


def test_a_judge_that_is_mixed_into_the_teacher_examines_only_on_purpose(load: Any) -> None:
    rewards = TWO["rewards"] | {"examiner": {"kind": "judge", "model": "a", "rubric": "mine.yaml"}}
    mixed = {"kind": "composite", "components": {"teacher": {"weight": 1.0}, "physics": {"weight": 1.0}}}
    tree = TWO | {
        "rewards": rewards | {"mixed": mixed},
        "feedback": "mixed",
        "score": {"rewards": ["teacher", "physics", "mixed"]},
    }
    with pytest.raises(UserError, match=r"of the same weights as 'teacher'"):
        load(tree)
