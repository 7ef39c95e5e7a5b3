"""`vidloop calibrate --fit`: lines from labels, held to other prompts; and the judge that uses them asks nothing anew."""

import csv
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from data import labels
from data.labels import Question, Vote
from data.queries import run_query
from data.store import Store
from rewards.few_labels import Judged, gain
from rewards.judge.recalibration import Line
from tasks.label_draws import drawn
from tasks.label_gain import label_gain
from tests.rewards.judge.conftest import write_rubric  # noqa: F401  (a fixture)
from tests.tiny_round import Ended, Tiny, play, some, write_prompts
from tests.tiny_vlm import tiny_vlm  # noqa: F401  (a fixture)

VALUES = "SELECT clip_id, reward_version, value FROM scores WHERE reward = '{}' ORDER BY ALL"


@pytest.mark.slow
def test_lines_are_fitted_reported_and_used(
    tiny: Tiny,
    tiny_vlm: Path,
    write_rubric: Callable[..., str],
    vidloop: Callable[..., Ended],
    tmp_path: Path,
) -> None:
    recipe: dict[str, Any] = yaml.safe_load(tiny.recipe.read_text())
    recipe |= {"rewards": ["physics", "sharpness", "judge"],
               "judge": {"backend": "local", "model": str(tiny_vlm), "rubric": write_rubric(threshold=0.4)}}  # fmt: skip
    recipe["generate"]["clips_per_prompt"] = 8
    tiny.recipe.write_text(yaml.safe_dump(recipe))
    assert vidloop("generate", "--plain", *tiny.args()).code == 0
    store = Store.open(tiny.store)
    clips = [row[0] for row in run_query(store, "SELECT clip_id FROM clips ORDER BY clip_id")[1]]
    file = tmp_path / "labels.csv"
    file.write_text("clip_id,label\n" + "".join(f"{clip},{i % 2}\n" for i, clip in enumerate(clips)))
    lines = tmp_path / "lines.json"
    asked = ["calibrate", "--labels", file, "--controls", "0", "--fit", lines, *tiny.args()]

    ended = vidloop(*asked)
    assert ended.code == 0, ended.err
    assert "recalibration: log loss and Brier score" in ended.out
    assert f"Used by --set judge.recalibration={lines}" in ended.out.replace("\n", "")
    assert (
        ended.out.count("No line of")
        == ended.out.count("0 clips with a label and a value, a line needs 20")
        > 0
    )
    found = json.loads(lines.read_text())
    assert found["questions"] == {}
    (facts,) = found["fitted"]["lines"]
    assert (facts["what"], facts["clips"]) == ("value", 24)
    # Labels that have nothing to do with the clips, of three prompts: no line helps on the prompt left out.
    assert facts["after"] > facts["before"]
    assert "The line of value does not help on clips left out" in ended.out

    # People answered a question of the rubric, too.
    question = sorted(
        row[0].removeprefix("judge/")
        for row in run_query(store, "SELECT DISTINCT reward FROM scores WHERE reward LIKE 'judge/%'")[1]
    )[0]
    labels.commit(store, [
        labels.label(Question(question), Vote(clip_id=clip, rater="ann", answer="yes" if i % 2 else "no"), "s")
        for i, clip in enumerate(clips)
    ])  # fmt: skip
    ended = vidloop(*asked)
    assert ended.code == 0, ended.err
    found = json.loads(lines.read_text())
    assert [one["what"] for one in found["fitted"]["lines"]] in ([question, "value"], ["value"])

    before = {clip: value for clip, _, value in run_query(store, VALUES.format("judge"))[1]}
    answers = run_query(store, "SELECT count(*) FROM scores WHERE reward LIKE 'judge/%'")[1]
    only = {"value": found["value"], "questions": {}}
    lines.write_text(json.dumps(only))
    mapped = vidloop(
        "calibrate", "--labels", file, "--controls", "0", *tiny.args("--set", f"judge.recalibration={lines}")
    )
    assert mapped.code == 0, mapped.err
    assert run_query(store, "SELECT count(*) FROM scores WHERE reward LIKE 'judge/%'")[1] == answers
    line = Line(**found["value"])
    both: dict[str, set[float]] = {}
    for clip, _, value in run_query(store, VALUES.format("judge"))[1]:
        both.setdefault(clip, set()).add(round(value, 9))
    assert both == {clip: {round(value, 9), round(line.at(value), 9)} for clip, value in before.items()}


@pytest.mark.slow
def test_a_fit_is_of_one_judge(tiny: Tiny, vidloop: Callable[..., Ended], tmp_path: Path) -> None:
    assert vidloop("generate", "--plain", *tiny.args()).code == 0
    two = vidloop(
        "calibrate", "--reward", "judge", "--reward", "sharpness", "--fit", tmp_path / "x", *tiny.args()
    )
    assert (two.code, "--fit, --draw and --gain are of one judge" in two.err) == (2, True)
    none = vidloop(
        "calibrate",
        "--reward",
        "sharpness",
        "--controls",
        "0",
        "--threshold",
        "1",
        "--fit",
        tmp_path / "x",
        *tiny.args(),
    )
    assert (none.code, "sharpness is none" in none.err) == (2, True)


@pytest.mark.slow
def test_uncertain_clips_are_drawn_and_only_the_drawn_count(
    tiny: Tiny, vidloop: Callable[..., Ended], tmp_path: Path
) -> None:
    """People are the judge here: their P(yes) needs no network."""
    assert vidloop("generate", "--plain", *tiny.args()).code == 0
    store = Store.open(tiny.store)
    clips = [row[0] for row in run_query(store, "SELECT clip_id FROM clips ORDER BY clip_id")[1]]
    labels.commit(store, [
        labels.label(Question("good"), Vote(clip_id=clip, rater=rater, answer=answer), "s")
        for i, clip in enumerate(clips)
        for rater, answer in (("ann", "yes"), ("bob", "no" if i % 3 == 0 else "yes"))
    ])  # fmt: skip
    truth = tmp_path / "truth.csv"
    truth.write_text("clip_id,label\n" + "".join(f"{clip},{i % 2}\n" for i, clip in enumerate(clips)))
    asked = ["calibrate", "--reward", "people", "--labels", truth, *tiny.args()]
    ended = vidloop(*asked, "--draw", "4")
    assert ended.code == 0, ended.err
    assert "Drawn to be labelled: 4 clips" in ended.out
    (file,) = (tiny.store / "calibrations").glob("draw-*.csv")
    with open(file) as opened:
        rows = list(csv.DictReader(opened))
    assert [row["clip_id"] for row in rows] == clips
    assert sum(float(row["chance"]) for row in rows) == pytest.approx(4)
    assert sum(int(row["drawn"]) for row in rows) == 4
    doubtful = [float(row["chance"]) for i, row in enumerate(rows) if i % 3 == 0]
    assert min(doubtful) > 2 * max(float(row["chance"]) for i, row in enumerate(rows) if i % 3)
    first = drawn(store)
    assert first.chances == pytest.approx({row["clip_id"]: float(row["chance"]) for row in rows})

    # All clips have a label, and four were drawn: the others had no known chance.
    assert vidloop(*asked).code == 0
    (found,) = (json.loads(path.read_text()) for path in (tiny.store / "calibrations").glob("people-*.json"))
    assert (found["rate"]["labels"], found["rate"]["clips"]) == (4, 9)
    assert vidloop(*asked, "--draw", "5").code == 0
    both = drawn(store)
    assert len(both.clips) >= 5
    assert all(both.chances[clip] > first.chances[clip] for clip in clips)
    too_many = vidloop(*asked, "--draw", "10")
    assert (too_many.code, "10 clips to label, and there are 9" in too_many.err) == (2, True)
    file.write_text("clip_id,chance,drawn\nc1,7,1\n")
    damaged = vidloop(*asked)
    assert (damaged.code, "cannot read which clips were drawn" in damaged.err) == (2, True)


def test_a_rounds_gain_is_estimated_from_labels_of_some_of_its_clips(
    tiny: Tiny, vidloop: Callable[..., Ended], tmp_path: Path
) -> None:
    write_prompts(tiny.folder / "heldout.jsonl", some("heldout", 6))
    summary = play(tiny, "evaluate.clips=24")
    store = Store.open(tiny.store)
    rows = run_query(
        store,
        "SELECT clip_id, policy_id, prompt_id, value FROM evaluations WHERE metric = 'motion' ORDER BY ALL",
    )[1]
    assert len(rows) == 48
    # Labels of two of four clips a prompt and policy, which say nothing that motion knows.
    truth = {row[0]: place % 4 < 2 for place, row in enumerate(rows) if place % 2 == 0}
    name, found = label_gain(store, summary["round"], "motion", ("mine", truth))
    sides = [
        Judged(
            np.array([row[3] for row in rows if row[1] == summary[policy]]),
            np.array([truth.get(row[0], np.nan) for row in rows if row[1] == summary[policy]], np.float64),
            [row[2] for row in rows if row[1] == summary[policy]],
        )
        for policy in ("policy_before", "policy_after")
    ]
    expected = gain(*sides)
    assert (name, found.labels, found.clips) == ("mine", 24, 48)
    assert dataclasses.astuple(found) == pytest.approx(dataclasses.astuple(expected))
    labels.commit(store, [
        labels.label(Question("good"), Vote(clip_id=clip, rater="ann", answer="yes" if right else "no"), "s")
        for clip, right in truth.items()
    ])  # fmt: skip
    ended = vidloop(
        "calibrate", "--gain", summary["round"], "--reward", "motion", "--labels", "people", *tiny.args()
    )
    assert ended.code == 0, ended.err
    assert f"gain of {summary['round']}, motion and people" in ended.out
    assert f"{found.value:.3f}" in ended.out
    for asked, told in (("colour", "did not measure 'colour'"), ("motion", "holds no round")):
        round_id = summary["round"] if asked == "colour" else "gone"
        failed = vidloop(
            "calibrate", "--gain", round_id, "--reward", asked, "--labels", "people", *tiny.args()
        )
        assert (failed.code, told in failed.err or "cannot read" in failed.err) == (2, True)
