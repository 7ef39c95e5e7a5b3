from collections import Counter
from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from models.training import noise
from models.training.settings import TrainSettings

Tune = Callable[..., TrainSettings]


def test_every_item_is_seen_equally_often() -> None:
    seen = Counter(int(i) for step in range(10) for i in noise.batch_at(3, step, 7, 14))
    assert set(seen.values()) == {5}
    assert len(seen) == 14


def test_epochs_come_in_different_orders_and_seeds_differ() -> None:
    orders = {tuple(noise.batch_at(seed, step, 8, 8)) for seed in (0, 1) for step in range(3)}
    assert len(orders) == 6


def test_a_batch_may_be_larger_than_the_data() -> None:
    assert Counter(noise.batch_at(0, 0, 10, 4).tolist()).most_common()[0][1] == 3


def test_a_step_draws_the_same_whatever_was_drawn_before(tune: Tune) -> None:
    settings = tune(fixed_noise_samples=4, prompt_dropout=0.5)

    def all_of(step: int) -> list[torch.Tensor]:
        return [
            noise.sigmas_at(settings, step, 6),
            noise.noise_at(settings.seed, step, (2, 3), torch.device("cpu")),
            torch.from_numpy(noise.draws_at(settings, step, 6)),
            torch.from_numpy(noise.dropped_at(settings, step, 6)),
            torch.from_numpy(noise.batch_at(settings.seed, step, 3, 9)),
        ]

    first = all_of(5)
    for other in (0, 1, 2):
        all_of(other)
    torch.manual_seed(99)
    np.random.default_rng(99)
    assert all(torch.equal(a, b) for a, b in zip(first, all_of(5), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, all_of(6), strict=True))


def test_stratified_levels_fall_one_into_each_share(tune: Tune) -> None:
    settings = tune(timestep_sampling="uniform", stratified=True)
    for step in range(5):
        shares = (noise.sigmas_at(settings, step, 10) * 10).floor().tolist()
        assert sorted(shares) == list(range(10))


def test_levels_follow_the_stated_distribution(tune: Tune) -> None:
    settings = tune(logit_mean=0.5, logit_std=1.5, stratified=False)
    logits = torch.logit(torch.cat([noise.sigmas_at(settings, step, 100) for step in range(50)]).double())
    assert logits.mean().item() == pytest.approx(0.5, abs=0.1)
    assert logits.std().item() == pytest.approx(1.5, abs=0.1)


def test_shift_is_the_samplers(tune: Tune) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    plain = np.linspace(0.1, 0.9, 5)
    shifted = noise.quantile_to_sigma(tune(timestep_sampling="uniform", shift=3.0), plain)
    scheduler.set_timesteps(sigmas=plain.tolist())
    assert torch.allclose(shifted, scheduler.sigmas[:-1], atol=1e-6)


def test_levels_never_reach_zero_or_one(tune: Tune) -> None:
    edges = noise.quantile_to_sigma(tune(logit_std=3.0), np.array([0.0, 1.0]))
    assert bool(((edges > 0) & (edges < 1)).all())


def test_fixed_draws_of_a_prompt_cover_the_distribution(tune: Tune) -> None:
    settings = tune(timestep_sampling="uniform", fixed_noise_samples=8)
    levels = [noise.fixed_sigma(settings, "p", k) for k in range(8)]
    assert [int(level * 8) for level in levels] == list(range(8))
    assert levels != [noise.fixed_sigma(settings, "q", k) for k in range(8)]


def test_fixed_noise_belongs_to_prompt_and_draw(tune: Tune) -> None:
    settings = tune(fixed_noise_samples=4)
    first = noise.fixed_noise(settings, "p", 0, (2, 2))
    assert torch.equal(first, noise.fixed_noise(settings, "p", 0, (2, 2)))
    assert not torch.equal(first, noise.fixed_noise(settings, "p", 1, (2, 2)))
    assert not torch.equal(first, noise.fixed_noise(settings, "q", 0, (2, 2)))


def test_fixed_draws_are_used_evenly(tune: Tune) -> None:
    used = Counter(int(k) for step in range(40) for k in noise.draws_at(tune(fixed_noise_samples=4), step, 8))
    assert set(used) == {0, 1, 2, 3}
    assert set(used.values()) == {80}


def test_prompt_dropout_has_its_rate(tune: Tune) -> None:
    rate = np.mean([noise.dropped_at(tune(prompt_dropout=0.25), step, 100).mean() for step in range(40)])
    assert rate == pytest.approx(0.25, abs=0.03)
    assert not noise.dropped_at(tune(prompt_dropout=0.0), 0, 100).any()


@pytest.mark.parametrize("sampling", ["logit_normal", "uniform"])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_an_experts_levels_are_those_of_the_whole_distribution_within_its_bounds(
    sampling: Literal["logit_normal", "uniform"], shift: float
) -> None:
    whole = TrainSettings(timestep_sampling=sampling, shift=shift, logit_mean=0.3, logit_std=1.2)
    quantiles = (np.arange(200_000) + 0.5) / 200_000
    all_levels = noise.quantile_to_sigma(whole, quantiles)
    for low, high in ((0.0, 0.875), (0.875, 1.0)):
        mine = noise.quantile_to_sigma(whole.changed(sigma_range=(low, high)), quantiles)
        assert low <= float(mine.min())
        assert float(mine.max()) < high
        kept = all_levels[(all_levels >= low) & (all_levels < high)]
        for share in (0.1, 0.5, 0.9):
            assert float(mine.quantile(share)) == pytest.approx(float(kept.quantile(share)), abs=1e-3)
    # the bounds of a model of one network change no bit
    assert torch.equal(noise.quantile_to_sigma(whole.changed(sigma_range=(0.0, 1.0)), quantiles), all_levels)


def test_the_level_of_the_boundary_belongs_to_the_upper_expert() -> None:
    edge = np.array([0.0, 1.0])
    low, high = (
        noise.quantile_to_sigma(TrainSettings(timestep_sampling="uniform", sigma_range=bounds), edge)
        for bounds in ((0.0, 0.9), (0.9, 1.0))
    )
    assert float(low.max()) < 0.9 <= float(high.min())
    with pytest.raises(ValidationError, match="no range within 0 and 1"):
        TrainSettings(sigma_range=(0.9, 0.9))


def test_no_place_of_a_batch_keeps_its_level_or_its_draw(tune: Tune) -> None:
    """Stratified over the batch, and then dealt out: where every part of a batch came from one share of the levels, a
    cut of the batch, or a process, would train on that share alone."""
    levels = torch.stack([noise.sigmas_at(tune(timestep_sampling="uniform"), step, 4) for step in range(40)])
    assert bool((levels.min(0).values < 0.25).all())
    assert bool((levels.max(0).values > 0.75).all())
    used = np.stack([noise.draws_at(tune(fixed_noise_samples=4), step, 4) for step in range(40)])
    assert all(set(column) == {0, 1, 2, 3} for column in used.T.tolist())


def test_a_batch_of_fewer_rows_than_draws_comes_to_all_of_them(tune: Tune) -> None:
    used = Counter(
        int(k) for step in range(200) for k in noise.draws_at(tune(fixed_noise_samples=16), step, 2)
    )
    assert set(used) == set(range(16))


def test_every_step_has_noise_of_its_own() -> None:
    first, second = (noise.noise_at(0, step, (2, 3), torch.device("cpu")) for step in (0, 1))
    assert not torch.equal(first, second)
    assert not torch.equal(first, noise.noise_at(1, 0, (2, 3), torch.device("cpu")))
