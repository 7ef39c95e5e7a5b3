"""`vidloop calibrate` on a tiny round whose judge is a tiny Qwen2-VL with random weights, in process."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from data.errors import StoreError, UserError
from data.records import Score
from data.store import Store
from flows.config.load import load_recipe
from flows.config.resolve import open_reward, open_round, passes
from rewards.calibration import Figures
from tasks.calibrate import FROZEN, Calibration, Control, calibrate, read, read_labels, warnings, write
from tasks.stages import run_stage
from tasks.units import Runner
from tests.rewards.judge.conftest import write_rubric  # noqa: F401  (a fixture)
from tests.tiny_round import Ended, Tiny, cached, committed, play
from tests.tiny_vlm import tiny_vlm  # noqa: F401  (a fixture)

Command = Callable[..., Ended]


@pytest.fixture
def judged(tiny: Tiny, tiny_vlm: Path, write_rubric: Callable[..., str]) -> Tiny:
    """The tiny round with a judge that teaches."""
    recipe: dict[str, Any] = yaml.safe_load(tiny.recipe.read_text())
    recipe |= {
        "rewards": ["physics", "sharpness", "judge"],
        "feedback": "judge",
        "judge": {"backend": "local", "model": str(tiny_vlm), "rubric": write_rubric(threshold=0.4)},
    }
    tiny.recipe.write_text(yaml.safe_dump(recipe))
    return tiny


def context(tiny: Tiny) -> Any:
    return open_round(load_recipe(str(tiny.recipe)), Store.open(tiny.store, create=True), "run")


@pytest.mark.slow
def test_a_judge_teaches_a_round_and_its_questions_can_be_asked_for_in_sql(
    judged: Tiny, vidloop: Command
) -> None:
    summary = play(judged)
    assert summary["feedback"] == "judge"
    assert summary["stages"]["score"]["failed"] == 0
    again = play(judged)
    assert all(done == total for done, total in cached(again).values())
    sql = "SELECT reward, count(*) AS n, min(value) >= 0 AND max(value) <= 1 AS sane FROM scores WHERE reward LIKE 'judge%' GROUP BY ALL ORDER BY reward"
    rows = json.loads(vidloop("query", sql, "--format", "json", "--store", judged.store).out)
    assert [(row["reward"], row["n"], row["sane"]) for row in rows] == [
        ("judge", 9, True),
        ("judge/physics", 9, True),
        ("judge/task", 9, True),
    ]


def rewrite(store: Store, reward: str, change: Callable[[Score], Score]) -> None:
    """Put other scores of `reward` in the place of those that the store holds, under the same keys."""
    for old in store.manifests("score"):
        if old.question["reward"] == reward:
            rows = [change(row) for row in store.read(old.key, "scores")]
            store.discard(old.key)
            new = store.commit("score", old.question, {"scores": rows}, (), old.parents, old.info)
            assert new.key == old.key
            assert new.digest != old.digest


def curated(tiny: Tiny) -> dict[str, bytes]:
    """Run the curation, and give back every file that it committed."""
    before = committed(tiny.store)
    run_stage("curate", context(tiny), Runner())
    return {name: data for name, data in committed(tiny.store).items() if name not in before}


def test_no_value_of_the_oracle_reaches_what_is_learned_from(judged: Tiny, tmp_path: Path) -> None:
    """Whatever the oracle says, the curated examples and pairs are the same bytes under the same key."""
    for stage in ("generate", "score"):
        run_stage(stage, context(judged), Runner())
    scored = [judged.at(shutil.copytree(judged.store, tmp_path / f"other-{i}")) for i in range(4)]
    expected = curated(judged)
    assert any(name.startswith("parts/curate") and "examples" in name for name in expected)
    assert any(name.startswith("parts/curate") and "pairs" in name for name in expected)

    rng = np.random.default_rng(0)
    perturbations: list[Callable[[Score], Score]] = [
        lambda row: replace(
            row, value=1 - row.value if row.value is not None else 1.0, status="ok", error=None
        ),
        lambda row: replace(row, value=float(rng.normal(0, 1e6)), status="ok", error=None),
        lambda row: replace(row, value=None, status="failed", error="the oracle is silent"),
    ]
    for other, change in zip(scored, perturbations, strict=False):
        rewrite(Store.open(other.store), "physics", change)
        assert curated(other) == expected

    # The comparison can fail: the same done to the judge's scores is learned from.
    rewrite(Store.open(scored[3].store), "judge", lambda row: replace(row, value=1 - (row.value or 0.0)))
    assert curated(scored[3]) != expected


def test_the_rubrics_threshold_is_the_shapings_unless_the_recipe_says_otherwise(judged: Tiny) -> None:
    recipe = yaml.safe_load(judged.recipe.read_text())
    del recipe["shaping"]
    judged.recipe.write_text(yaml.safe_dump(recipe))
    assert context(judged).curate.threshold == 0.4
    recipe["shaping"] = {"threshold": 0.7}
    judged.recipe.write_text(yaml.safe_dump(recipe))
    assert context(judged).curate.threshold == 0.7


SCALE = {"lowest": 1, "highest": 5, "min_mass": 0.0}
LAWS = [
    {"id": name, "concerns": f"{name}: {{prompt}}?", "questions": ["a?", "b?"]} for name in ("heat", "time")
]


@pytest.mark.parametrize("more", [{"scale": SCALE}, {"laws": LAWS}], ids=["grades", "laws"])
def test_grades_and_laws_have_a_threshold_that_somebody_says_and_no_calibration_error(
    more: dict[str, Any], judged: Tiny, write_rubric: Callable[..., str]
) -> None:
    recipe = yaml.safe_load(judged.recipe.read_text())
    recipe["judge"]["rubric"] = write_rubric("more.yaml", **more)
    del recipe["shaping"]
    judged.recipe.write_text(yaml.safe_dump(recipe))
    with pytest.raises(UserError, match="nobody knows from which value a clip passes"):
        context(judged)
    recipe["shaping"] = {"threshold": 0.45}
    judged.recipe.write_text(yaml.safe_dump(recipe))
    opened = context(judged)
    assert opened.curate.threshold == 0.45
    run_stage("generate", opened, Runner())
    clips = [row for m in opened.store.manifests("generate") for row in opened.store.read(m.key, "clips")]
    labels = {row.clip_id: i % 3 == 0 for i, row in enumerate(clips)}
    read = load_recipe(str(judged.recipe))
    assert passes(read, "judge") is None
    found = calibrate(opened, open_reward(read, "judge"), ("mine", labels), None, 2, Runner())
    assert (found.overall.n, found.overall.failed) == (len(clips), 0)
    assert (found.overall.ece, found.bins) == (None, [])
    assert found.overall.auc is not None
    assert found.overall.passed == pytest.approx(sum(labels.values()) / len(labels), abs=0.12)
    assert found.controls["frozen frame"].n > 0


@pytest.mark.slow
def test_a_judge_is_calibrated_against_labels_of_ones_own(
    judged: Tiny, vidloop: Command, tmp_path: Path
) -> None:
    assert "was not calibrated" in warnings(context(judged))[0]
    assert vidloop("generate", "--plain", *judged.args()).code == 0
    clips = [
        row
        for m in Store.open(judged.store).manifests("generate")
        for row in Store.open(judged.store).read(m.key, "clips")
    ]
    labels = tmp_path / "labels.csv"
    labels.write_text("clip_id,label\n" + "".join(f"{row.clip_id},{i % 2}\n" for i, row in enumerate(clips)))
    ended = vidloop("calibrate", "--labels", labels, "--controls", "3", *judged.args())
    assert ended.code == 0, ended.err
    assert "judge against labels.csv, threshold 0.4" in ended.out
    for word in ("accuracy", "frozen frame", "compression"):
        assert word in ended.out
    (kept,) = (judged.store / "calibrations").glob("judge-*.json")
    found = json.loads(kept.read_text())
    assert (found["overall"]["n"], found["overall"]["failed"]) == (len(clips), 0)
    assert found["controls"]["frozen frame"]["n"] == 3
    assert set(found["categories"]) == {row.category for row in clips}
    page = kept.with_suffix(".html").read_text()
    assert "<svg" in page
    assert "Reliability" in page
    (warned,) = warnings(context(judged))
    assert f"hardly calibrated: {len(clips)} clips with labels of labels.csv: it is right on" in warned
    assert found["rate"] is None  # every clip has a label: there is nothing to say of others
    some = tmp_path / "some.csv"
    some.write_text(
        "clip_id,label\n" + "".join(f"{row.clip_id},{i % 2}\n" for i, row in enumerate(clips[:4]))
    )
    ended = vidloop("calibrate", "--labels", some, "--controls", "0", *judged.args())
    assert "share of all clips with label 1" in ended.out
    assert "labels are of" in ended.out
    assert "an interval needs 5" in ended.out
    # The scores are in the store now: the round's score stage has none of the judge's left to do.
    summary = play(judged)
    assert summary["stages"]["score"]["failed"] == 0


@pytest.mark.slow
def test_rewards_are_calibrated_side_by_side(judged: Tiny, vidloop: Command, tmp_path: Path) -> None:
    """One command, one table, one page: values that are no probability have every figure but calibration error."""
    for stage in ("generate", "score"):
        run_stage(stage, context(judged), Runner())
    store = Store.open(judged.store)
    clips = [row for m in store.manifests("generate") for row in store.read(m.key, "clips")]
    labels = tmp_path / "labels.csv"
    labels.write_text("clip_id,label\n" + "".join(f"{row.clip_id},{i % 2}\n" for i, row in enumerate(clips)))
    rewards = ("judge", "sharpness", "flicker")
    asked = [word for name in rewards for word in ("--reward", name)]
    ended = vidloop("calibrate", *asked, "--labels", labels, "--controls", "2", *judged.args())
    assert ended.code == 0, ended.err
    table = ended.out[ended.out.index("side by side, against labels.csv") :]
    rows = {name: next(line for line in table.splitlines() if name in line.split()) for name in rewards}
    for name in rewards:
        (kept,) = (judged.store / "calibrations").glob(f"{name}-*.json")
        found = json.loads(kept.read_text())
        assert (found["overall"]["ece"] is None) == (name != "judge")
        cells = [cell.strip() for cell in rows[name].strip("│ ").split("│")]
        for figure in ("accuracy", "precision", "recall", "auc", "ece"):
            value = found["overall"][figure]
            assert ("-" if value is None else f"{value:.3f}") in cells
        assert set(found["controls"]) == {
            "frozen frame", "shuffled frames", "reversed motion", "wrong caption", "compression",
        }  # fmt: skip
    page = (judged.store / "calibrations" / "judge+sharpness+flicker.html").read_text()
    assert page.count("against labels.csv") == 1 + len(rewards)
    assert page.index("Side by side") < page.index("Reliability")


def test_a_threshold_is_of_one_reward_and_a_name_must_be_one(judged: Tiny, vidloop: Command) -> None:
    Store.open(judged.store, create=True)
    for words, said in (
        (("--reward", "clip", "--reward", "flow", "--threshold", "0.5"), "of one reward"),
        (("--reward", "judge", "--reward", "clap"), "did you mean 'clip'"),
    ):
        ended = vidloop("calibrate", *words, *judged.args())
        assert ended.code == 2
        assert said in ended.err


def calibration(labels: str, labels_id: str, n: int, accuracy: float, positives: float = 0.4) -> Calibration:
    """Of the judge, as if it had been found."""
    found = Figures(n, 0, positives, 0.5, accuracy, 0.9, 0.9, 0.9, 0.9, 0.1)
    return Calibration("judge", "judge", "", labels, 0.5, found, {}, [], {}, labels_id)


def test_calibrations_stand_side_by_side_and_the_one_of_most_clips_speaks(judged: Tiny) -> None:
    opened = context(judged)
    for labels, labels_id, n in (("oracle", "aa", 960), ("mine.csv", "bb", 20), ("mine.csv", "cc", 300)):
        write(opened.store, replace(calibration(labels, labels_id, n, 0.9), version=opened.feedback.version))
    known = read(opened.store, "judge", opened.feedback.version)
    assert known is not None
    assert (known[0].labels, known[0].overall.n) == ("oracle", 960)
    assert len(list((judged.store / "calibrations").glob("judge-*.json"))) == 3
    # of the same labels the later one stays
    write(opened.store, replace(calibration("oracle", "aa", 10, 0.9), version=opened.feedback.version))
    known = read(opened.store, "judge", opened.feedback.version)
    assert known is not None
    assert (known[0].labels, known[0].overall.n) == ("mine.csv", 300)
    assert warnings(opened) == []


@pytest.mark.parametrize(
    ("n", "accuracy", "positives", "said"),
    [
        (2, 1.0, 0.5, "2 clips with labels of mine: it is right on 34% to 100%"),
        (20, 0.9, 0.5, "20 clips with labels of mine: it is right on 70% to 97%"),
        (90, 0.5, 0.5, "90 clips with labels of mine: it is right on 40% to 60%"),
        (500, 0.9, 1.0, "all 500 labels of mine are alike"),
    ],
)
def test_a_calibration_of_too_little_silences_nothing(
    judged: Tiny, n: int, accuracy: float, positives: float, said: str
) -> None:
    opened = context(judged)
    found = calibration("mine", "aa", n, accuracy, positives)
    write(opened.store, replace(found, version=opened.feedback.version))
    (warned,) = warnings(opened)
    assert f"hardly calibrated: {said}" in warned


def test_a_judge_that_likes_stillness_is_told_of(judged: Tiny) -> None:
    opened = context(judged)
    found = replace(calibration("mine", "aa", 300, 0.9), version=opened.feedback.version)
    write(opened.store, replace(found, controls={FROZEN: Control(50, 0.9, 0.8)}))
    (warned,) = warnings(opened)
    assert "may reward stillness" in warned


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clip_id\nc1\n", "no column label"),
        ("clip_id,label\nc1,2\n", "must be 0 or 1"),
        ("clip_id,label\nc1,1\nc1,0\n", "named twice"),
        ("clip_id,label,label\nc1,1,0\n", "2 columns label"),
        ("clip_id,label,n\udce9e\nc1,1,0\n", "utf-8"),
    ],
)
def test_labels_that_are_wrong_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(os.fsencode(text))
    with pytest.raises(UserError, match=message):
        read_labels(path)


def test_labels_of_clips_whose_ids_are_digits(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("clip_id,label\n007,1\n7,0\n")
    assert read_labels(path) == ("labels.csv", {"007": True, "7": False})


def test_a_calibration_that_is_damaged_is_named(judged: Tiny) -> None:
    opened = context(judged)
    for content in (b'{"still": true}', b"[" * 5000, b"\xff", b"[]"):
        name = f"calibrations/judge-{opened.feedback.version}.json"
        opened.store.write_file(name, content)
        path = opened.store.root / name
        with pytest.raises(StoreError, match=str(path)):
            warnings(opened)


@pytest.mark.parametrize(
    ("figure", "value"),
    [
        ("accuracy", 1.7),
        ("accuracy", -0.1),
        ("accuracy", float("nan")),
        ("positives", 2),
        ("n", -5),
        ("n", 10**40),
        ("auc", float("inf")),
        ("passed", "half"),
    ],
)
def test_figures_that_cannot_be_are_refused_where_they_are_read_and_the_named_command_heals(
    judged: Tiny, vidloop: Command, figure: str, value: object
) -> None:
    opened = context(judged)
    found = replace(calibration("mine", "aa", 300, 0.9), version=opened.feedback.version)
    path = opened.store.root / write(opened.store, found)
    said = json.loads(path.read_text())
    said["overall"][figure] = value
    path.write_text(json.dumps(said))
    with pytest.raises(StoreError, match=str(path)) as refused:
        warnings(opened)
    assert f"vidloop scrub --heal --store {judged.store}" in str(refused.value)
    assert vidloop("scrub", "--heal", "--store", judged.store).code == 0
    assert "was not calibrated" in warnings(opened)[0]


def test_without_clips_calibrate_says_what_to_do(judged: Tiny, vidloop: Command) -> None:
    Store.open(judged.store, create=True)
    ended = vidloop("calibrate", *judged.args())
    assert ended.code == 2
    assert "vidloop generate" in ended.err
