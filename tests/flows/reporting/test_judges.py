"""The report's section on the judge: who, by what, and whether anybody knows that it is right."""

import html
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data.records import Clip, Score
from data.store import Store
from flows.reporting.judges import read_judges, scores_of
from flows.reporting.page import render
from flows.reporting.read import find_summary, read_facts
from rewards.calibration import Figures
from tasks.calibrate import FROZEN, Calibration, Control, write

VERSION = "f" * 16
OTHER = "e" * 16
RECIPE = {
    "name": "mini",
    "rewards": {
        "judge": {
            "kind": "judge",
            "model": "weights/<judge>",
            "backend": "local",
            "rubric": "rubrics/world.yaml",
        },
        "examiner": {
            "kind": "judge",
            "model": "weights/other",
            "backend": "vllm",
            "rubric": "rubrics/own.yaml",
        },
    },
}


def asked(version: str, *questions: str) -> dict[str, Any]:
    return {"kind": "judge", "version": version, "parts": {f"judge/{one}": version for one in questions}}


JUDGE = {"judge": asked(VERSION, "physics", "flicker")}


def answer(p_yes: float) -> str:
    return json.dumps({"answers": [{"p_yes": p_yes, "mass": 1.0}]})


@pytest.fixture(scope="module")
def round_of_a_judge(tmp_path_factory: pytest.TempPathFactory, make_round: Callable[..., None]) -> Store:
    """A round whose training clips a judge was asked two questions about; one of them failed once."""
    store = Store.open(tmp_path_factory.mktemp("judged") / "store", create=True)
    make_round(store, recipe=RECIPE, rewards=JUDGE)
    (shard,) = (m for m in store.manifests("generate") if m.question["split"] == "train")
    clips: list[Clip] = store.read(shard.key, "clips")
    for name, good in (("judge/physics", True), ("judge/flicker", False), ("judge", True)):
        rows = []
        for place, clip in enumerate(clips):
            yes = place / len(clips)
            failed = name == "judge/physics" and place == 0
            value: Any = None if failed else yes if good else 1 - yes
            status, error = ("failed", "no <answer>") if failed else ("ok", None)
            rows.append(
                Score(clip.clip_id, name, VERSION, value, status, error, "{}" if failed else answer(yes))
            )
        question = {"stage": "score", "reward": name, "clips": shard.key}
        store.commit("score", question, {"scores": rows}, parents=[shard.key])
    return store


@pytest.fixture
def judged(round_of_a_judge: Store, tmp_path: Path) -> Store:
    """The same in a store that the test may change."""
    return Store.open(shutil.copytree(round_of_a_judge.root, tmp_path / "store"))


def page_of(store: Store) -> str:
    """The page without its clips, whose packing takes long."""
    return render(read_facts(store, find_summary(store, None)), {})


def test_it_names_the_judge_and_shows_p_of_yes_by_question(round_of_a_judge: Store) -> None:
    page = page_of(round_of_a_judge)
    assert '<a href="#judge">' in page
    said = page.partition('<section id="judge">')[2].partition("</section>")[0]
    assert "was not calibrated: nobody knows how often it is right" in said
    assert "weights/&lt;judge&gt;" in said
    assert "rubrics/world.yaml" in said
    assert said.count("<svg") == 2
    assert "P(yes) to question flicker over 60 training clips" in said
    assert "P(yes) to question physics over 59 training clips" in said
    assert "1 clips without an answer, for example: no &lt;answer&gt;" in said
    # Values of flicker are 1 - P(yes); medians of P(yes) = place / 60 are shown.
    assert "Median 0.492 (dashed)" in said
    assert "Median 0.5 (dashed)" in said
    rewards = page.partition('<section id="rewards">')[2]
    assert "judge/" not in rewards.partition("</section>")[0]


def belief(store: Store) -> str:
    shards = [m for m in store.manifests("generate") if m.question["split"] == "train"]
    (judge,) = read_judges(store, scores_of(store, shards), find_summary(store, None))
    return judge.belief


def test_the_calibration_of_this_very_version_is_quoted_and_no_others(judged: Store) -> None:
    overall = Figures(240, 0, 0.5, 0.5, 0.88, 0.9, 0.85, 0.9, 0.957, 0.02)
    found = Calibration("judge", "judge", "0" * 16, "physics", 0.5, overall, {}, [], {})
    write(judged, found)
    assert "was not calibrated" in belief(judged)
    write(judged, replace(found, version=VERSION))
    said = belief(judged)
    assert "agrees with physics on 88.0% of 240 clips" in said
    assert "AUC 0.957" in said
    assert "was not calibrated" not in said
    assert "frozen" not in said
    write(judged, replace(found, version=VERSION, controls={FROZEN: Control(20, 1.0, 0.9)}))
    assert "passes frozen clips" in belief(judged)


def test_a_round_without_a_judge_has_no_such_section(reported: Store) -> None:
    page = page_of(reported)
    assert 'id="judge"' not in page
    assert '"#judge"' not in page


def test_two_judges_of_a_round_stand_under_their_own_names(
    judged: Store, make_round: Callable[..., None]
) -> None:
    (shard,) = (m for m in judged.manifests("generate") if m.question["split"] == "train")
    clips: list[Clip] = judged.read(shard.key, "clips")
    for name in ("judge/physics", "judge"):
        rows = [Score(clip.clip_id, name, OTHER, 0.25, "ok", None, answer(0.25)) for clip in clips]
        question = {"stage": "score", "reward": name, "version": OTHER, "clips": shard.key}
        judged.commit("score", question, {"scores": rows}, parents=[shard.key])
    (path,) = judged.root.glob("rounds/*/summary.json")
    summary = json.loads(path.read_text()) | {"rewards": JUDGE | {"examiner": asked(OTHER, "physics")}}
    path.write_text(json.dumps(summary | {"feedback": "examiner"}))
    page = page_of(judged)
    said = page.partition('<section id="judge">')[2].partition("</section>")[0]
    first, _, second = said.partition("<strong>examiner</strong>")
    assert "weights/&lt;judge&gt;" in first
    assert first.count("<svg") == 2
    assert "weights/other" in second
    assert "rubrics/own.yaml" in second
    assert second.count("<svg") == 1
    rewards = page.partition('<section id="rewards">')[2].partition("</section>")[0]
    assert "<h3>examiner <span" in rewards, "the one that taught"
    assert "<h3>judge</h3>" in rewards


def test_grades_and_laws_are_shown_as_what_they_are(judged: Store) -> None:
    (shard,) = (m for m in judged.manifests("generate") if m.question["split"] == "train")
    clips: list[Clip] = judged.read(shard.key, "clips")
    graded = json.dumps({"answers": [{"grade": 4.0, "share": 0.75, "mass": 1.0}]})
    concern = {"concern": {"by": "judge", "p_yes": 0.9}}
    asked_law = json.dumps({"questions": [{"value": 0.6, "answers": [{"p_yes": 0.6}]}], **concern})
    not_asked = json.dumps({"concerned": False, **concern})
    laws = [
        (0.6, "ok", None, asked_law) if place % 3 else (None, "failed", "not asked: law heat ...", not_asked)
        for place in range(len(clips))
    ]
    for name, rows in (
        ("judge/looks", [(0.75, "ok", None, graded)] * len(clips)),
        ("judge/heat", laws),
    ):
        made: list[Any] = [
            Score(clip.clip_id, name, OTHER, *row) for clip, row in zip(clips, rows, strict=True)
        ]
        question = {"stage": "score", "reward": name, "version": OTHER, "clips": shard.key}
        judged.commit("score", question, {"scores": made}, parents=[shard.key])
    (path,) = judged.root.glob("rounds/*/summary.json")
    summary = json.loads(path.read_text()) | {"rewards": {"examiner": asked(OTHER, "looks", "heat")}}
    path.write_text(json.dumps(summary))
    page = page_of(judged)
    said = page.partition('<section id="judge">')[2].partition("</section>")[0]
    assert "grade, as a share of the scale to question looks over 60 training clips" in said
    assert "mean over the law's questions to question heat over 40 training clips" in html.unescape(said)
    assert "20 clips were not asked: their prompts do not concern it" in said
    assert "without an answer" not in said
