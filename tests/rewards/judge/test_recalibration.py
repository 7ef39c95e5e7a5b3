"""Lines through log-odds: what they change, what is fitted, and what a file of them may say."""

import json
from pathlib import Path

import numpy as np
import pytest

from data.errors import ConfigError
from rewards import Judgement, reward_kind, reward_settings, reward_version
from rewards.judge.recalibration import Line, Recalibration, brier, fit, load_recalibration, log_loss
from tests.tiny_vlm import tiny_vlm  # noqa: F401  (a fixture)

RUBRIC = "miniature/rubrics/world.yaml"


def test_slope_one_and_intercept_zero_change_nothing_and_ends_stay_ends():
    values = np.array([0.0, 0.01, 0.5, 0.9, 1.0])
    assert Line(slope=1.0, intercept=0.0).all(values) == pytest.approx(values, abs=2e-6)
    mapped = Line(slope=3.0, intercept=-2.0).all(values)
    assert np.all(np.diff(mapped) > 0)
    assert (mapped.min() >= 0, mapped.max() <= 1) == (True, True)
    assert Line(slope=2.0, intercept=0.0).at(0.9) == pytest.approx(81 / 82)


def test_a_fitted_line_undoes_what_was_done_to_probabilities():
    rng = np.random.default_rng(0)
    true = rng.beta(1, 1, 20_000)
    label = rng.random(20_000) < true
    said = Line(slope=2.5, intercept=1.0).all(true)  # too sure, and too friendly
    line = fit(said, label)
    assert (line.slope, line.intercept) == pytest.approx((1 / 2.5, -1 / 2.5), abs=0.03)
    assert log_loss(line.all(said), label) == pytest.approx(log_loss(true, label), abs=1e-3)
    assert log_loss(said, label) > log_loss(true, label) + 0.1
    assert brier(line.all(said), label) < brier(said, label)


def test_a_judge_that_makes_no_mistake_gets_a_line_that_ends():
    label = np.arange(40) % 2 == 0
    line = fit(np.where(label, 0.9, 0.1), label)
    assert 1 < line.slope < 3
    assert line.at(0.9) == pytest.approx(21 / 22, abs=1e-3)


def test_losses_by_hand():
    label = np.array([True, False])
    assert log_loss(np.array([0.8, 0.4]), label) == pytest.approx(-(np.log(0.8) + np.log(0.6)) / 2)
    assert brier(np.array([0.8, 0.4]), label) == pytest.approx((0.04 + 0.16) / 2)


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "lines.json"
    path.write_text(Recalibration(questions={"physics": Line(slope=1.0, intercept=-2.0)}).model_dump_json())
    return path


def test_a_question_is_recalibrated_before_the_clip_is_judged_and_its_answers_stay(tiny_vlm, lines):
    kind = reward_kind("judge")
    plain = reward_settings("judge", {"model": str(tiny_vlm), "rubric": RUBRIC})
    mapped = plain.changed(recalibration=str(lines))
    names = [part.name for part in kind.parts(plain) if not part.categories]
    said = {name: Judgement(0.8, {"answers": [{"p_yes": 0.8}]}) for name in names}
    said |= {part.name: Judgement(0.9) for part in kind.parts(plain) if part.categories}
    before, after = (kind.combine(one, "falling down", said) for one in (plain, mapped))
    assert before.detail["questions"]["physics"] == 0.8
    assert after.detail["questions"]["physics"] == pytest.approx(1 / (1 + np.exp(2) / 4))
    assert after.value < before.value
    # Nothing is asked anew: the questions' versions are what they were.
    assert kind.parts(mapped) == kind.parts(plain)


def test_the_judges_version_is_of_the_lines_and_not_of_what_is_told_of_them(tiny_vlm, lines, tmp_path):
    asked = {"model": str(tiny_vlm), "rubric": RUBRIC}
    plain = reward_version("judge", asked)
    first = reward_version("judge", asked | {"recalibration": str(lines)})
    told = json.loads(lines.read_text()) | {"fitted": {"clips": 300}}
    (tmp_path / "same.json").write_text(json.dumps(told))
    told["questions"]["physics"]["slope"] = 0.9
    (tmp_path / "other.json").write_text(json.dumps(told))
    same, other = (
        reward_version("judge", asked | {"recalibration": str(tmp_path / name)})
        for name in ("same.json", "other.json")
    )
    assert first == same
    assert len({plain, first, other}) == 3


def test_the_clips_value_has_a_line_of_its_own():
    found = Recalibration(value=Line(slope=1.0, intercept=1.0))
    assert found.of(None, 0.5) == pytest.approx(1 / (1 + np.exp(-1)))
    assert found.of("physics", 0.5) == 0.5


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "recalibration: "),
        ("[]", "expected an object"),
        ('{"value": {"slope": 1}}', "intercept"),
        ('{"question": {}}', "did you mean questions"),
        (
            '{"questions": {"colour": {"slope": 1, "intercept": 0}}}',
            "'colour', which is no question of the rubric",
        ),
    ],
)
def test_files_that_say_something_else_are_refused(text, told, tmp_path):
    path = tmp_path / "lines.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=told):
        load_recalibration(str(path), ["physics"])
    with pytest.raises(ConfigError, match="calibrate --fit"):
        load_recalibration(str(tmp_path / "gone.json"), ["physics"])
