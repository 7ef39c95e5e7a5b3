from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data.errors import UserError
from rewards.judge.rubric import load_rubric
from rewards.judge.settings import JudgeSettings, judge_version
from tests.rewards.judge.conftest import RUBRIC

ROOT = Path(__file__).resolve().parents[3]
Write = Callable[..., str]


@pytest.mark.parametrize(
    ("folder", "name"), [("miniature/rubrics", "world"), ("rewards/judge/rubrics", "general")]
)
def test_shipped_rubrics_are_right_and_cover_what_a_judge_must_be_asked(folder: str, name: str) -> None:
    rubric = load_rubric(f"{folder}/{name}.yaml")
    assert rubric.name == name
    assert len(rubric.asked_of("falling down")) >= 4
    assert rubric.frames.count >= 8


def test_the_general_rubric_has_a_question_of_each_category() -> None:
    from miniature.world.catalog import CATEGORIES

    rubric = load_rubric("rewards/judge/rubrics/general.yaml")
    own = [category for question in rubric.questions for category in question.categories]
    assert sorted(own) == sorted(CATEGORIES)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"treshold": 0.5}, "treshold: unknown key; did you mean threshold"),
        ({"frames": {"count": 4, "spaceing": 1}}, "frames.spaceing: unknown key"),
        ({"questions": [{"id": "a", "text": "?", "wieght": 2.0}]}, "did you mean questions.0.weight"),
        ({"frames": {"count": 1}}, "frames.count"),
        ({"combine": "product"}, "combine"),
        ({"threshold": 1.5}, "threshold"),
        ({"answer": {"positive": [True], "negative": ["no"]}}, "put it in quotes"),
        ({"answer": {"positive": ["yes"], "negative": ["yes"]}}, "both a positive and a negative"),
        ({"questions": [{"id": "a", "text": "?"}, {"id": "a", "text": "!"}]}, "two questions are called a"),
        ({"questions": []}, "questions"),
        ({"questions": [{"id": "A b", "text": "?"}]}, "questions.0.id"),
        ({"questions": [{"id": "a"}]}, "questions.0.text: this key is required"),
    ],
)
def test_a_wrong_rubric_says_what_is_wrong(
    changed: dict[str, Any], message: str, write_rubric: Write
) -> None:
    with pytest.raises(UserError, match=message):
        load_rubric(write_rubric(**changed))


def test_a_file_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(UserError, match=r"miniature/rubrics/world\.yaml"):
        load_rubric("no/such.yaml")


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "twice.yaml").write_text("name: a\nname: b\n")
    with pytest.raises(UserError, match="given twice"):
        load_rubric(str(tmp_path / "twice.yaml"))


def test_digests_follow_what_decides_the_answers_and_nothing_else(
    write_rubric: Write, tmp_path: Path
) -> None:
    def version(file: str) -> str:
        return judge_version(JudgeSettings(model="hf-hub:some/judge", rubric=str(tmp_path / file)))

    base = load_rubric(write_rubric())
    first = base.questions[0]
    questions = RUBRIC["questions"]
    more = load_rubric(
        write_rubric(
            "more.yaml", questions=[*questions, {"id": "new", "text": "new?"}], threshold=0.9, name="other"
        )
    )
    assert more.question_digest(more.questions[0]) == base.question_digest(first)
    assert version("more.yaml") != version("rubric.yaml")
    renamed = load_rubric(write_rubric("renamed.yaml", name="other"))
    assert renamed.name != base.name
    assert version("renamed.yaml") == version("rubric.yaml")
    for changed in (
        {"system": "Say yes or no."},
        {"frames": {"count": 6}},
        {"answer": {"positive": ["yes"], "negative": ["no"]}},
        {"questions": [{"id": "task", "text": "{prompt}"}]},
        {"questions": [{"id": "task", "text": questions[0]["text"], "good": "negative"}]},
    ):
        other = load_rubric(write_rubric("changed.yaml", **changed))
        assert other.question_digest(other.questions[0]) != base.question_digest(first), changed


def test_a_file_that_changes_is_read_again(write_rubric: Write) -> None:
    path = write_rubric()
    before = load_rubric(path)
    assert load_rubric(write_rubric(threshold=0.75)).threshold != before.threshold
