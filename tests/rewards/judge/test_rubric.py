from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data.errors import UserError
from rewards.judge.rubric import load_rubric
from rewards.judge.settings import JudgeSettings, judge_parts, judge_version
from tests.rewards.judge.conftest import RUBRIC

ROOT = Path(__file__).resolve().parents[3]
Write = Callable[..., str]


def test_the_physics_rubric_asks_by_law_and_knows_no_pass_mark() -> None:
    rubric = load_rubric("rewards/judge/rubrics/physics.yaml")
    assert (rubric.name, rubric.questions, rubric.combine, rubric.passes) == ("physics", [], "mean", None)
    assert len(rubric.laws) == 13
    texts = [text for law in rubric.laws for text in (law.concerns, *law.questions)]
    assert len(set(texts)) == len(texts)
    assert all(text.endswith("Answer yes or no.") for text in texts)
    assert all(2 <= len(law.questions) <= 3 for law in rubric.laws)


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
        ({"scale": {"lowest": 5, "highest": 1}}, "must be below highest"),
        ({"scale": {"lowest": 1, "highest": 10}}, "scale.highest"),
        ({"scale": {"lowst": 1, "highest": 5}}, "did you mean scale.lowest"),
        (
            {"laws": [{"id": "task", "concerns": "{prompt}", "questions": ["?"]}]},
            "two questions are called task",
        ),
        (
            {"laws": [{"id": "heat", "concerns": "heat?", "questions": ["?"]}]},
            "asks the same of every prompt",
        ),
        ({"laws": [{"id": "heat", "concerns": "{prompt}", "questions": []}]}, "laws.0.questions"),
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
    assert more.part_digest(more.questions[0]) == base.part_digest(first)
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
        assert other.part_digest(other.questions[0]) != base.part_digest(first), changed


def test_a_file_that_changes_is_read_again(write_rubric: Write) -> None:
    path = write_rubric()
    before = load_rubric(path)
    assert load_rubric(write_rubric(threshold=0.75)).threshold != before.threshold


HEAT: dict[str, Any] = {"id": "heat", "concerns": "heat: {prompt}?", "questions": ["up?", "slow?"]}


def test_only_probabilities_have_a_pass_mark_that_nobody_says(write_rubric: Write) -> None:
    assert load_rubric(write_rubric()).passes == 0.5
    for more in ({"scale": {"lowest": 1, "highest": 5}}, {"laws": [HEAT]}):
        assert load_rubric(write_rubric(**more)).passes is None
        assert load_rubric(write_rubric(**more, threshold=0.75)).passes == 0.75


def test_versions_of_laws_and_grades_follow_what_decides_them(write_rubric: Write, tmp_path: Path) -> None:
    def parts(**changed: Any) -> dict[str, str]:
        rubric = write_rubric("changed.yaml", **changed)
        return {
            part.name: part.version for part in judge_parts(JudgeSettings(model="hf-hub:a/b", rubric=rubric))
        }

    plain, base = parts(), parts(laws=[HEAT])
    assert base.items() > plain.items(), "a law more asks the law alone"
    assert parts(laws=[HEAT | {"weight": 2.0}], threshold=0.7, combine="mean") == base
    for change in ({"concerns": "hot: {prompt}?"}, {"questions": ["up?"]}):
        reworded = parts(laws=[HEAT | change])
        assert reworded["judge/heat"] != base["judge/heat"]
        assert reworded.items() > plain.items()
    assert parts(laws=[HEAT], concern_system="Say yes.")["judge/heat"] != base["judge/heat"]
    graded = parts(scale={"lowest": 1, "highest": 5})
    assert not graded.items() & plain.items()
    assert graded != parts(scale={"lowest": 1, "highest": 4})
    # No yes and no are asked for.
    assert graded == parts(scale={"lowest": 1, "highest": 5}, answer={"positive": ["Y"], "negative": ["N"]})


def test_a_laws_version_follows_what_prompts_files_say_of_it(write_rubric: Write, tmp_path: Path) -> None:
    rubric = write_rubric(laws=[HEAT, HEAT | {"id": "light"}])

    def parts(*lines: str) -> dict[str, str]:
        (tmp_path / "p.jsonl").write_text("\n".join(lines))
        settings = JudgeSettings(model="hf-hub:a/b", rubric=rubric, laws=(str(tmp_path / "p.jsonl"),))
        return {part.name: part.version for part in judge_parts(settings)}

    first = parts('{"text": "ice melts", "laws": ["heat"]}')
    more = parts('{"text": "ice melts", "laws": ["heat", "light"]}')
    assert {name for name in first if first[name] != more[name]} == {"judge/light"}
    assert parts('{"text": "ice melts", "laws": "heat light", "category": "x"}') == more
    with pytest.raises(
        UserError, match="names a law 'heet', which rubric two does not have; did you mean 'heat'"
    ):
        parts('{"text": "ice melts", "laws": ["heet"]}')
