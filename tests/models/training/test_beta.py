"""beta from a target spread: a number of the data and the reference, measured before anything is trained."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from data.errors import UserError
from models.families.base import Family
from models.training.beta import Calibration, calibrate
from models.training.reference import ErrorTable, measure
from models.training.settings import TrainSettings
from models.training.train_data import Clips, TrainData
from models.training.trainer import TrainJob, train

Tune = Callable[..., TrainSettings]
Make = Callable[[], nn.Module]


def table_by_hand(data: TrainData) -> ErrorTable:
    """Errors of which winners have 0.1, losers 0.3 at draw 0, and 0.2, 0.1 at draw 1."""
    rows = torch.tensor([[0.1, 0.2], [0.3, 0.1]]).repeat(6, 1)
    return ErrorTable(data.clip_ids, dict(zip(data.clip_ids, rows, strict=True)))


def by_table(data: TrainData, transformer: nn.Module, family: Family, settings: TrainSettings) -> Calibration:
    return calibrate(transformer, family, data, settings, 4, table_by_hand(data))


def test_beta_of_dpo_by_hand(
    family: Family, transformer: nn.Module, train_data: TrainData, tune: Tune
) -> None:
    found = by_table(
        train_data, transformer, family, tune(objective="dpo", fixed_noise_samples=2, target_logit_std=3.0)
    )
    # differences -0.2 and 0.1: rms = sqrt((0.04 + 0.01) / 2)
    assert found.error_spread == pytest.approx(0.025**0.5, rel=1e-5)
    assert found.beta == pytest.approx(2 * 3.0 / 0.025**0.5, rel=1e-5)
    assert (found.units, found.draws) == (6, 2)


def test_beta_of_kto_by_hand(
    family: Family, transformer: nn.Module, train_data: TrainData, tune: Tune
) -> None:
    found = by_table(
        train_data, transformer, family, tune(objective="kto", fixed_noise_samples=2, target_logit_std=3.0)
    )
    # four clips a prompt, 0.1 and 0.05 from their mean; times 4/3 for the mean being their own
    assert found.error_spread == pytest.approx((4 / 3 * (0.01 + 0.0025) / 2) ** 0.5, rel=1e-5)
    assert found.units == 12


def test_the_unit_of_errors_cancels(
    family: Family, transformer: nn.Module, train_data: TrainData, tune: Tune
) -> None:
    # the most asked question of the field has no answer in numbers: a sum instead of a mean asks for another beta
    settings = tune(objective="dpo", fixed_noise_samples=2, target_logit_std=1.0)

    def times(factor: float) -> ErrorTable:
        one = table_by_hand(train_data)
        rows = {
            c: factor * one(torch.tensor([i, i]), torch.arange(2)) for i, c in enumerate(train_data.clip_ids)
        }
        return ErrorTable(train_data.clip_ids, rows)

    mean, total = (calibrate(transformer, family, train_data, settings, 4, times(f)) for f in (1.0, 1280.0))
    assert mean.beta == pytest.approx(1280.0 * total.beta, rel=1e-5)


@pytest.mark.parametrize("objective", ["dpo", "dpo-anchor", "kto"])
def test_training_uses_and_reports_the_beta_it_measured(
    family: Family, make_transformer: Make, train_data: TrainData, tune: Tune, objective: Any
) -> None:
    settings = tune(objective=objective, target_logit_std=2.0, fixed_noise_samples=3, steps=3)
    clips = Clips(
        train_data.clip_ids,
        train_data.prompt_ids,
        train_data.latents,
        train_data.embeds,
        train_data.prompt_index,
    )
    errors = measure(make_transformer(), family, clips, settings, 6).double()
    if objective == "kto":
        grouped = errors.view(3, 4, 3)
        apart = (grouped - grouped.mean(1, keepdim=True)) * (4 / 3) ** 0.5
    else:
        apart = errors[train_data.pairs[:, 0]] - errors[train_data.pairs[:, 1]]
    expected = 2 * 2.0 / apart.square().mean().sqrt().item()
    found = train(make_transformer(), family, TrainJob(train_data, settings, "b"))
    assert found.diagnostics["beta"] == pytest.approx(expected, rel=1e-4)
    assert found.diagnostics["calibration"]["target_spread"] == 2.0
    given = train(make_transformer(), family, TrainJob(train_data, settings.changed(target_logit_std=None, beta=found.diagnostics["beta"]), "b"))  # fmt: skip
    assert given.adapter == found.adapter
    assert "calibration" not in given.diagnostics


def test_clips_that_do_not_differ_are_said_so(
    family: Family, transformer: nn.Module, train_data: TrainData, tune: Tune
) -> None:
    same = replace(train_data, latents=train_data.latents[:1].repeat(12, 1, 1, 1, 1))
    with pytest.raises(UserError, match="target_logit_std cannot be met"):
        calibrate(transformer, family, same, tune(objective="dpo", target_logit_std=1.0), 4)


def test_without_fixed_draws_a_sample_of_units_is_measured(
    family: Family, transformer: nn.Module, train_data: TrainData, tune: Tune
) -> None:
    many = replace(train_data, pairs=train_data.pairs.repeat(20, 1))
    found = calibrate(transformer, family, many, tune(objective="dpo", target_logit_std=1.0), 4)
    assert (found.units, found.draws) == (64, 8)
    again = calibrate(transformer, family, many, tune(objective="dpo", target_logit_std=1.0, beta=7.0), 4)
    assert found == again


def test_a_sample_for_kto_is_of_clips_that_have_others_of_their_prompt(
    family: Family, transformer: nn.Module, train_data: TrainData, tune: Tune
) -> None:
    """Every n-th clip of many prompts would be of another prompt each time, and differ from nothing."""
    prompts = 70
    order = torch.arange(2 * prompts) // 2
    many = replace(
        train_data,
        clip_ids=tuple(f"c{i}" for i in range(2 * prompts)),
        prompt_ids=tuple(f"p{i}" for i in range(prompts)),
        latents=train_data.latents[torch.arange(2 * prompts) % 12],
        embeds=train_data.embeds[torch.arange(prompts) % 3],
        prompt_index=order,
        examples=torch.arange(2 * prompts),
        weights=torch.ones(2 * prompts),
        accepted=torch.arange(2 * prompts) % 2 == 0,
        pairs=torch.zeros(0, 2, dtype=torch.int64),
    )
    settings = tune(objective="kto", target_logit_std=1.0)
    found = calibrate(transformer, family, many, settings, 8)
    assert found.units == 64, "32 prompts, both clips of each"
    whole = Clips(many.clip_ids, many.prompt_ids, many.latents, many.embeds, many.prompt_index)
    errors = measure(transformer, family, whole, settings.changed(fixed_noise_samples=8), 8).double()
    apart = (errors[::2] - errors[1::2]) / 2**0.5  # of two clips, each from the mean, times 2 / 1
    assert found.error_spread == pytest.approx(apart.square().mean().sqrt().item(), rel=0.2)
