"""Intervals over seeds and prompts at once, on synthetic values whose spread is known."""

from __future__ import annotations

import numpy as np
import pytest

from models.gate.intervals import mean
from studies import bootstrap


def synthetic(
    seeds: int, prompts: int, by_seed: float, by_prompt: float, noise: float, draw: int, truth: float = 0.1
) -> tuple[bootstrap.Floats, bootstrap.Ints, bootstrap.Ints]:
    """truth + a seed's own + a prompt's own + what is left to chance, of every (seed, prompt)."""
    rng = np.random.default_rng(draw)
    own = by_seed * rng.normal(size=(seeds, 1)) + by_prompt * rng.normal(size=(1, prompts))
    values = truth + own + noise * rng.normal(size=(seeds, prompts))
    rows, columns = np.meshgrid(np.arange(seeds), np.arange(prompts), indexing="ij")
    return values.ravel(), rows.ravel(), columns.ravel()


def width(found: bootstrap.Interval) -> float:
    assert found.low is not None
    assert found.high is not None
    return found.high - found.low


@pytest.mark.parametrize(
    ("by_seed", "by_prompt"), [(0.0, 0.5), (0.2, 0.0), (0.2, 0.5)], ids=["prompts", "seeds", "both"]
)
def test_the_truth_lies_in_the_interval_as_often_as_it_says(by_seed: float, by_prompt: float) -> None:
    inside = 0
    for draw in range(60):
        values, rows, columns = synthetic(10, 40, by_seed, by_prompt, 0.2, draw)
        found = bootstrap.crossed(values, rows, columns, 300, 0.95, 0)
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= 0.1 <= found.high
    # Ten seeds are few: percentile intervals are a little narrow. 60 trials at 0.95 miss 51 in a hundred times.
    assert inside >= 51


def test_values_that_are_alike_within_a_seed_give_a_wider_interval_than_prompts_alone_say() -> None:
    values, rows, columns = synthetic(4, 60, by_seed=0.5, by_prompt=0.0, noise=0.1, draw=1)
    both = bootstrap.crossed(values, rows, columns, 1000, 0.95, 0)
    prompts = mean(values, columns, 0.95)
    assert both.value == pytest.approx(prompts.value)
    assert width(both) > 3 * width(prompts)


def test_one_seed_leaves_the_prompts_alone() -> None:
    values, rows, columns = synthetic(1, 50, 0.0, 0.3, 0.1, draw=2)
    both = bootstrap.crossed(values, rows, columns, 2000, 0.95, 0)
    one_way = mean(values, columns, 0.95)
    assert both.value == pytest.approx(one_way.value)
    assert width(both) == pytest.approx(width(one_way), rel=0.1)


def test_unequal_numbers_of_clips_weigh_as_clips() -> None:
    values = np.array([1.0, 1.0, 1.0, 0.0])
    found = bootstrap.crossed(values, np.array([0, 0, 1, 1]), np.array([5, 5, 5, 9]), 400, 0.95, 3)
    assert found.value == 0.75
    assert (found.low, found.high) == (0.0, 1.0)


def test_a_single_prompt_has_no_interval() -> None:
    found = bootstrap.crossed(np.array([1.0, 0.0]), np.array([0, 1]), np.array([7, 7]), 100, 0.95, 0)
    assert (found.value, found.low, found.high, found.lacking) == (0.5, None, None, "a single prompt")
