from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from models.gate.verdict import Paired
from models.gate.wins import wins

NAN = math.nan


def paired(before: list[float], after: list[float], per_prompt: int = 2) -> Paired:
    prompts = tuple(f"p{i // per_prompt}" for i in range(len(before)))
    return Paired("physics", np.array(before), np.array(after), prompts, ("any",) * len(before))


def test_a_tie_counts_one_half_and_prompts_make_the_interval() -> None:
    found = wins(paired([0, 0, 0, 1, 1, 1, 0, 0, 1, 0], [1, 1, 1, 1, 1, 0, 1, 0, 1, 1]), 0.95)
    assert (found.won, found.tied, found.lost, found.prompts) == (5, 4, 1, 5)
    assert found.rate == pytest.approx(0.7)
    by_prompt = np.array([1.0, 0.75, 0.25, 0.75, 0.75])
    half = stats.t.ppf(0.975, 4) * by_prompt.std(ddof=1) / math.sqrt(5)
    assert found.low == pytest.approx(0.7 - half)
    assert found.high == pytest.approx(min(1.0, 0.7 + half))


def test_a_rate_stays_between_nothing_and_all() -> None:
    found = wins(paired([0.0] * 12, [1.0] * 11 + [0.0]), 0.95)
    assert found.rate == pytest.approx(11.5 / 12)
    assert found.high == 1.0
    assert found.low is not None
    assert 0.5 < found.low < found.rate


def test_how_much_better_does_not_matter() -> None:
    small, large = (wins(paired([0.0, 1.0] * 4, [by, 1.0] * 4), 0.95) for by in (0.001, 1000.0))
    assert small == large


@pytest.mark.parametrize(
    ("before", "after", "rate", "said"),
    [
        ([1.0] * 8, [1.0] * 8, 0.5, "no prompt is there a difference"),
        ([0.0] * 6, [1.0] * 6, 1.0, "4 prompts would give one, there are 3"),
        ([NAN] * 8, [1.0] * 8, None, "nothing was measured"),
        ([], [], None, "nothing was measured"),
    ],
)
def test_what_cannot_be_told_is_said(
    before: list[float], after: list[float], rate: float | None, said: str
) -> None:
    found = wins(paired(before, after), 0.95)
    assert (found.rate, found.low, found.high) == (rate, None, None)
    assert said in (found.no_interval or "")


def test_a_pair_of_which_one_failed_is_left_out() -> None:
    found = wins(paired([0, NAN, 0, 0, 1, 0, 0, 0], [1, 1, NAN, 0, 1, 1, 1, 0]), 0.95)
    assert (found.won, found.tied, found.lost) == (3, 3, 0)
