"""Few labels and many judgements: right on average, never worse than the labels, and drawn with known chances."""

import math

import numpy as np
import pytest

from data.errors import DataError
from rewards.few_labels import Judged, draw, gain, rate


def world(rng, prompts=60, clips=8, accuracy=0.9):
    """Labels and P(yes) of clips; prompts differ in how hard they are."""
    hard = rng.beta(2, 2, (prompts, 1))
    label = (rng.random((prompts, clips)) < hard).astype(float).ravel()
    right = rng.random(label.shape) < accuracy
    value = np.clip(np.where(right, label, 1 - label) * 0.8 + 0.2 * rng.random(label.shape), 0, 1)
    return label, value, np.repeat(np.arange(prompts), clips).tolist()


def some(label, places):
    known = np.full(len(label), np.nan)
    known[places] = label[places]
    return known


def test_with_every_label_the_judge_changes_nothing():
    label, value, prompts = world(np.random.default_rng(0))
    found = rate(Judged(value, label, prompts))
    assert found.value == pytest.approx(label.mean(), abs=1e-9) == pytest.approx(found.alone)
    assert (found.low, found.high) == pytest.approx((found.alone_low, found.alone_high), abs=1e-9)
    assert (found.labels, found.clips, found.lacking) == (480, 480, "")


def test_by_hand():
    """Two labels of three: estimate = mean(Y) + power (mean of all f - mean of the labelled f)."""
    prompts = list("abcdefghij")
    value = np.array([0.9, 0.2, 0.8, 0.1, 0.7, 0.9, 0.2, 0.8, 0.1, 0.7])
    label = np.array([1.0, 0.0, 1.0, 0.0, 0.0, *[math.nan] * 5])
    found = rate(Judged(value, label, prompts))
    assert found.alone == pytest.approx(0.4)
    assert found.value == pytest.approx(0.4 + found.power * (value.mean() - value[:5].mean()))
    residual = np.zeros(10)
    residual[:5] = (label[:5] - 0.4 - found.power * (value[:5] - value[:5].mean())) / 5
    residual += found.power * (value - value.mean()) / 10
    from scipy.stats import t

    half = t.ppf(0.975, 4) * math.sqrt(5 / 4 * (residual**2).sum())
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half))


@pytest.mark.parametrize("accuracy", [0.5, 0.9, 1.0])
def test_a_judge_narrows_the_interval_as_far_as_it_is_right_and_the_level_holds(accuracy):
    rng = np.random.default_rng(1)
    held, narrower = [], []
    for _ in range(300):
        label, value, prompts = world(rng, accuracy=accuracy)
        found = rate(Judged(value, some(label, rng.choice(480, 80, replace=False)), prompts))
        held.append(found.low <= 0.5 <= found.high)
        narrower.append((found.high - found.low) / (found.alone_high - found.alone_low))
        assert found.worth == pytest.approx(80 / narrower[-1] ** 2)
    assert 0.92 <= np.mean(held) <= 0.98
    assert np.mean(narrower) == pytest.approx({0.5: 0.995, 0.9: 0.755, 1.0: 0.6}[accuracy], abs=0.05)


def test_a_scale_of_its_own_does_not_matter_to_the_estimate():
    rng = np.random.default_rng(2)
    label, value, prompts = world(rng)
    known = some(label, rng.choice(480, 80, replace=False))
    one, other = rate(Judged(value, known, prompts)), rate(Judged(1000 - 7 * value, known, prompts))
    assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high))


def test_a_gain_is_of_prompts_that_both_have():
    """The same clips before and after, and the same labels: no gain, however different the prompts are."""
    rng = np.random.default_rng(3)
    held, widths = [], []
    for _ in range(200):
        hard = rng.beta(2, 2, (60, 1))
        sides = []
        for more in (0.0, 0.2):
            label = (rng.random((60, 4)) < hard + more * (1 - hard)).astype(float).ravel()
            value = np.clip(label * 0.7 + 0.3 * rng.random(240), 0, 1)
            places = rng.choice(240, 100, replace=False)
            sides.append(Judged(value, some(label, places), np.repeat(np.arange(60), 4).tolist()))
        found = gain(*sides)
        held.append(found.low <= 0.1 <= found.high)
        widths.append((found.high - found.low) / (found.alone_high - found.alone_low))
        assert (found.labels, found.clips) == (200, 480)
    assert 0.91 <= np.mean(held) <= 0.99
    assert np.mean(widths) < 0.75


def test_what_cannot_be_said_is_null_with_its_reason():
    label, value, prompts = world(np.random.default_rng(4))
    nothing = rate(Judged(value, np.full(480, np.nan), prompts))
    assert (nothing.value, nothing.lacking) == (None, "no clip has a label")
    few = rate(Judged(value, some(label, np.arange(16)), prompts))
    assert (few.value, few.low, few.lacking) == (None, None, "labels are of 2 prompts, an interval needs 5")
    alike = rate(Judged(value, some(np.ones(480), np.arange(0, 480, 10)), prompts))
    assert (alike.value, alike.alone, alike.lacking) == (None, 1.0, "all 48 labels are alike")


def test_uncertain_clips_are_drawn_first_exactly_so_many_and_every_clip_has_a_chance():
    rng = np.random.default_rng(5)
    value = np.concatenate([np.full(100, 0.5), np.full(300, 0.01)])
    hits = np.zeros(400)
    for _ in range(2000):
        places, chances = draw(value, 40, rng)
        assert len(places) == 40
        hits[places] += 1
    assert chances.sum() == pytest.approx(40)
    assert chances[:100].mean() > 2 * chances[100:].mean() > 0
    assert hits / 2000 == pytest.approx(chances, abs=0.04)
    places, chances = draw(value, 400, rng)
    assert places.tolist() == list(range(400))
    assert chances.tolist() == [1.0] * 400
    with pytest.raises(DataError, match="401 clips to label, and there are 400"):
        draw(value, 401, rng)


def test_what_was_asked_more_often_counts_less():
    rng = np.random.default_rng(6)
    held, ratio = [], []
    for _ in range(300):
        label, value, prompts = world(rng)
        places, chances = draw(value, 80, rng)
        found = rate(Judged(value, some(label, places), prompts, chances))
        held.append(found.low <= 0.5 <= found.high)
        even = rate(Judged(value, some(label, rng.choice(480, 80, replace=False)), prompts))
        ratio.append((found.high - found.low) / (even.high - even.low))
    assert 0.92 <= np.mean(held) <= 0.98
    assert np.mean(ratio) < 1.05
