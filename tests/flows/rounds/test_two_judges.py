"""A round with two judges of different models and rubrics: one teaches, the other examines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from data.lineage import parents
from data.queries import run_query
from data.store import Store
from flows.reporting import build_report
from tasks.summary import RoundSummary
from tests.rewards.judge.conftest import RUBRIC, write_rubric  # noqa: F401  (a fixture)
from tests.tiny_round import Tiny, cached, play
from tests.tiny_vlm import build_tiny_vlm, tiny_vlm  # noqa: F401  (a fixture)


@pytest.fixture(scope="module")
def other_vlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("other-vlm") / "judge"
    build_tiny_vlm(folder, seed=1)
    return folder


def named(tiny: Tiny, teacher: str, examiner: str, one: dict[str, Any], other: dict[str, Any]) -> Tiny:
    recipe: dict[str, Any] = yaml.safe_load(tiny.recipe.read_text())
    recipe |= {
        "rewards": {
            teacher: {"kind": "judge", **one},
            "sharpness": {},
            examiner: {"kind": "judge", **other},
        },
        "judge": {"backend": "local"},
        "score": {"rewards": [teacher, "sharpness"]},
        "feedback": teacher,
    }
    recipe["evaluate"] |= {"metric": examiner}
    recipe["finetune"] |= {"steps": 2}
    tiny.recipe.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return tiny


def scored(store: Path) -> set[str]:
    return {path.name for path in store.glob("manifests/score/*.json")}


@pytest.mark.slow
def test_one_judge_teaches_the_other_examines_and_new_names_score_nothing_anew(
    tiny: Tiny,
    tiny_vlm: Path,
    other_vlm: Path,
    write_rubric: Callable[..., str],
) -> None:
    one = {"model": str(tiny_vlm), "rubric": write_rubric()}
    questions = [RUBRIC["questions"][1], {"id": "objects", "text": "objects: {prompt}?"}]
    other = {"model": str(other_vlm), "rubric": write_rubric("other.yaml", questions=questions)}
    summary = RoundSummary.model_validate(play(named(tiny, "teacher", "examiner", one, other)))

    assert summary.feedback == "teacher"
    assert summary.primary.metric == "examiner"
    assert summary.primary.n > 0
    assert summary.rewards is not None
    teacher, examiner = summary.rewards["teacher"], summary.rewards["examiner"]
    assert (teacher.kind, examiner.kind) == ("judge", "judge")
    assert teacher.version != examiner.version
    assert set(teacher.parts) == {"judge/task", "judge/physics"}
    assert set(examiner.parts) == {"judge/physics", "judge/objects"}
    assert teacher.parts["judge/physics"] != examiner.parts["judge/physics"], "another model's answer"

    store = Store.open(tiny.store)

    def rows(sql: str) -> list[tuple[Any, ...]]:
        return run_query(store, sql)[1]

    # Scores are kept under kind and version; the names lead there, and columns bear them.
    assert rows(
        "SELECT DISTINCT reward, reward_version FROM scores WHERE reward = 'judge' ORDER BY ALL"
    ) == sorted(("judge", one.version) for one in (teacher, examiner))
    by_name = "SELECT name, count(*) FROM scores JOIN names USING (reward, reward_version) GROUP BY ALL ORDER BY ALL"
    evaluated = 2 * 4
    found = {name: count for name, count in rows(by_name)}
    assert found["teacher"] == 9, "the training clips"
    assert found["examiner"] == evaluated, "it judged no training clip"
    assert rows("SELECT count(teacher), count(examiner) FROM scores_wide") == [(9, evaluated)]
    metrics = {name for (name,) in rows("SELECT DISTINCT metric FROM evaluations")}
    assert {"examiner", "examiner/physics", "examiner/objects"} <= metrics
    assert not any(name.startswith(("judge", "teacher")) for name in metrics)
    # The curation is the teacher's alone.
    (curation,) = store.manifests("curate")
    asked = {
        m.question["reward_version"]
        for key in parents(store, curation)
        if (m := store.manifest(key)) and m.stage == "score"
    }
    assert asked == {teacher.version}

    page = build_report(store, None).read_text("utf-8")
    for name, folder in (("teacher", tiny_vlm), ("examiner", other_vlm)):
        assert f"<strong>{name}</strong>: model <code>{folder}</code>" in page
    assert "<h3>teacher <span" in page
    assert "examiner on clips of heldout" in page

    before = scored(tiny.store)
    played = play(named(tiny, "anna", "berta", one, other))
    again = RoundSummary.model_validate(played)
    assert scored(tiny.store) == before
    assert (again.feedback, again.primary.metric) == ("anna", "berta")
    assert again.primary.changed(metric="examiner") == summary.primary
    for stage, (done, total) in cached(played).items():
        assert done == total or stage == "evaluate", stage
    names = {name for (name,) in rows(f"SELECT name FROM names WHERE reward_version = '{teacher.version}'")}
    assert names == {"teacher", "anna"}
    assert json.loads((tiny.store / f"rounds/{again.round}/summary.json").read_text())["rewards"]["anna"] == {
        "kind": "judge", "version": teacher.version, "parts": teacher.parts,
    }  # fmt: skip
