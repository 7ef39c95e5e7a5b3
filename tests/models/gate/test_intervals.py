import numpy as np
import pytest

from models.gate import intervals
from models.gate.intervals import Floats, Interval, Ints


def clustered(
    rng: np.random.Generator, effect: float, clusters: int = 40, size: int = 4
) -> tuple[Floats, Ints]:
    """Differences whose prompts vary far more than the clips of one prompt."""
    of_prompt = rng.normal(effect, 0.3, size=(clusters, 1))
    values = (of_prompt + rng.normal(0, 0.1, size=(clusters, size))).ravel()
    return values, np.repeat(np.arange(clusters), size)


def coverage(by_prompt: bool, clusters: int = 40, runs: int = 600) -> float:
    hits = 0
    for run in range(runs):
        values, prompts = clustered(np.random.default_rng(run), 0.1, clusters)
        found = intervals.mean(values, prompts if by_prompt else np.arange(len(values)), 0.95)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 0.1 <= found.high
    return hits / runs


@pytest.mark.parametrize("clusters", [4, 8, 40])
def test_interval_covers_the_truth_as_often_as_it_says(clusters: int) -> None:
    # 600 trials at 0.95: three standard deviations are 0.027.
    assert 0.923 <= coverage(True, clusters) <= 0.977


def test_clips_taken_for_independent_would_be_far_too_sure() -> None:
    assert coverage(by_prompt=False) < 0.75


def test_the_level_holds_for_yes_and_no_on_few_prompts() -> None:
    rng = np.random.default_rng(0)
    above = 0
    for _ in range(2000):
        rate = rng.beta(2, 3, size=5)
        change = (rng.binomial(2, rate) - rng.binomial(2, rate)) / 2
        found = intervals.mean(change, np.arange(5), 0.95)
        above += found.low is not None and found.low > 0
    assert above / 2000 <= 0.03


def test_estimate_is_the_mean_over_clips_also_when_prompts_differ_in_size() -> None:
    prompts = np.array([5, 5, 5, 9, 1, 1, 2])
    found = intervals.mean(np.array([1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0]), prompts, 0.95)
    assert found.value == pytest.approx(4 / 7)
    assert found.low is not None
    assert found.low < 4 / 7 < (found.high or 0)


def test_the_interval_is_that_of_the_textbook_where_prompts_are_of_one_size() -> None:
    values, clusters = clustered(np.random.default_rng(4), 0.1, clusters=10)
    means = values.reshape(10, 4).mean(axis=1)
    half = 2.2621571628540993 * means.std(ddof=1) / np.sqrt(10)  # t of 9 degrees of freedom
    found = intervals.mean(values, clusters, 0.95)
    assert found.low == pytest.approx(means.mean() - half, rel=1e-9)
    assert found.high == pytest.approx(means.mean() + half, rel=1e-9)


def test_too_few_prompts_give_an_estimate_and_no_interval() -> None:
    found = intervals.mean(np.array([1.0, 2.0, 6.0]), np.array([3, 4, 4]), 0.95)
    assert (found.value, found.low, found.high) == (3.0, None, None)
    assert found.lacking == "4 prompts would give one, there are 2"
    assert intervals.ratio(np.ones(3), np.ones(3), np.arange(3), 0.95).lacking.endswith("are 3")


def test_no_difference_at_all_says_nothing_of_how_large_one_may_be() -> None:
    found = intervals.mean(np.zeros(40), np.arange(40) // 4, 0.95)
    assert found == Interval(0.0, lacking="on no prompt is there a difference")


def test_where_all_agree_the_interval_is_as_wide_as_one_more_that_does_not_would_make_it() -> None:
    few, many = (intervals.mean(np.ones(n), np.arange(n), 0.95) for n in (4, 100))
    assert few.value == many.value == 1.0
    assert 0 < (few.low or 0) < 0.5 < 0.95 < (many.low or 0) < 1


def test_ratio_of_means_not_mean_of_ratios() -> None:
    before, after = np.array([1.0, 3.0, 2.0, 2.0]), np.array([2.0, 3.0, 1.0, 2.0])
    found = intervals.ratio(after, before, np.arange(4), 0.95)
    assert found.value == 1.0
    assert found.low is not None
    assert found.low * (found.high or 0) == pytest.approx(1.0), "symmetric in logs"


def test_ratio_needs_something_before() -> None:
    with pytest.raises(ValueError, match="no ratio"):
        intervals.ratio(np.ones(4), np.zeros(4), np.arange(4), 0.95)


def test_what_is_gone_is_gone_for_sure() -> None:
    assert intervals.ratio(np.zeros(8), np.ones(8), np.arange(8), 0.95) == Interval(0.0, 0.0, 0.0)


def test_a_ratio_that_is_the_same_on_every_prompt_is_certain() -> None:
    before = np.array([0.0, 0.5, 0.0, 1.0, 2.0])
    found = intervals.ratio(before * 2, before, np.arange(5), 0.95)
    assert (found.value, found.low, found.high) == (2.0, 2.0, 2.0)


def test_an_interval_is_the_same_to_the_last_bit_on_every_processor() -> None:
    """Sums term by term, no kernel's choice."""
    place = np.arange(600)
    values, after = (place * place % 17) / 7 - 1, (place * 13 % 29) / 11
    prompts = place % 97
    found = [intervals.mean(values, prompts, 0.95), intervals.ratio(after, values + 1, prompts, 0.95)]
    assert found == [
        Interval(0.1404761904761906, 0.10115328128106561, 0.17979909967131558),
        Interval(1.1141013475042698, 1.0478953464569236, 1.184490241995605),
    ]
