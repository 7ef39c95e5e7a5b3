import numpy as np
import pytest

from models.gate import bootstrap
from models.gate.bootstrap import Floats, Ints


def clustered(
    rng: np.random.Generator, effect: float, clusters: int = 40, size: int = 4
) -> tuple[Floats, Ints]:
    """Differences whose prompts vary far more than the clips of one prompt."""
    of_prompt = rng.normal(effect, 0.3, size=(clusters, 1))
    values = (of_prompt + rng.normal(0, 0.1, size=(clusters, size))).ravel()
    return values, np.repeat(np.arange(clusters), size)


def coverage(by_prompt: bool, runs: int = 300) -> float:
    hits = 0
    for run in range(runs):
        values, clusters = clustered(np.random.default_rng(run), effect=0.1)
        ids = clusters if by_prompt else np.arange(len(values))
        found = bootstrap.mean(values, ids, draws=400, confidence=0.95, seed=run)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 0.1 <= found.high
    return hits / runs


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    assert 0.91 <= coverage(by_prompt=True) <= 0.985


def test_resampling_clips_instead_of_prompts_would_be_far_too_sure() -> None:
    assert coverage(by_prompt=False) < 0.75


def test_no_effect_is_rarely_called_one() -> None:
    above = 0
    for run in range(300):
        values, clusters = clustered(np.random.default_rng(1000 + run), effect=0.0)
        low = bootstrap.mean(values, clusters, draws=400, confidence=0.95, seed=run).low
        assert low is not None
        above += low > 0
    assert above / 300 <= 0.05


def test_estimate_is_the_mean_over_clips_also_when_prompts_differ_in_size() -> None:
    found = bootstrap.mean(np.array([1.0, 1.0, 1.0, 0.0]), np.array([5, 5, 5, 9]), 100, 0.95, 0)
    assert found.value == 0.75
    assert (found.low, found.high) == (0.0, 1.0)


def test_each_draw_takes_as_many_prompts_as_there_are() -> None:
    tables = list(bootstrap.resampled_counts(7, 500, seed=3))
    counts = np.concatenate(tables)
    assert counts.shape == (500, 7)
    assert set(counts.sum(axis=1)) == {7.0}
    assert counts.mean() == pytest.approx(1.0)
    assert counts.var() == pytest.approx(6 / 7, rel=0.1), "multinomial"


def test_many_prompts_are_drawn_in_slices_that_fit_memory() -> None:
    tables = list(bootstrap.resampled_counts(50_000, 200, seed=0))
    assert len(tables) > 1
    assert sum(len(table) for table in tables) == 200


def test_same_seed_same_interval_other_seed_nearly() -> None:
    values, clusters = clustered(np.random.default_rng(0), 0.1)
    first, again, other = (bootstrap.mean(values, clusters, 10_000, 0.95, seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert first.low == pytest.approx(other.low, abs=0.01)


def test_interval_agrees_with_the_normal_theory_of_cluster_means() -> None:
    values, clusters = clustered(np.random.default_rng(4), 0.1, clusters=200)
    means = values.reshape(200, 4).mean(axis=1)
    half = 1.96 * means.std() / np.sqrt(200)
    found = bootstrap.mean(values, clusters, 10_000, 0.95, 0)
    assert found.low == pytest.approx(means.mean() - half, abs=0.004)
    assert found.high == pytest.approx(means.mean() + half, abs=0.004)


def test_one_prompt_gives_an_estimate_and_no_interval() -> None:
    assert bootstrap.mean(np.array([1.0, 2.0]), np.array([3, 3]), 100, 0.95, 0) == bootstrap.Interval(
        1.5, None, None
    )


def test_ratio_of_means_not_mean_of_ratios() -> None:
    before, after = np.array([1.0, 3.0, 2.0]), np.array([2.0, 3.0, 1.0])
    found = bootstrap.ratio(after, before, np.arange(3), 1000, 0.95, 0)
    assert found.value == 1.0
    assert found.low == 0.5
    assert found.high == 2.0


def test_ratio_needs_something_before() -> None:
    with pytest.raises(ValueError, match="no ratio"):
        bootstrap.ratio(np.ones(3), np.zeros(3), np.arange(3), 100, 0.95, 0)


def test_ratio_of_a_measure_that_is_mostly_zero_is_finite_where_it_can_be() -> None:
    before = np.array([0.0, 0.0, 0.0, 1.0])
    found = bootstrap.ratio(before * 2, before, np.arange(4), 1000, 0.95, 0)
    assert found.value == 2.0
    assert found.low == 2.0


def test_an_interval_is_the_same_to_the_last_bit_on_every_processor() -> None:
    """Sums term by term, no kernel's choice: the numbers here were found with SSE, AVX2 and AVX-512 kernels."""
    place = np.arange(600)
    values, after = (place * place % 17) / 7 - 1, (place * 13 % 29) / 11
    prompts, seeds = place % 97, place // 150
    found = [
        bootstrap.mean(values, prompts, 3000, 0.95, 0),
        bootstrap.ratio(after, values + 1, prompts, 3000, 0.95, 0),
        bootstrap.crossed(values, seeds, prompts, 3000, 0.95, 0),
    ]
    assert found == [
        bootstrap.Interval(0.14047619047619045, 0.10200708382526562, 0.18068609022556395),
        bootstrap.Interval(1.1141013475042705, 1.0470317133520952, 1.1809611001811557),
        bootstrap.Interval(0.14047619047619045, 0.06922183507549354, 0.21440338903271353),
    ]
