"""The optimiser's step: the schedule, and AdamW with clipped gradients, against PyTorch's own by hand."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import nn

from models import lora
from models.families.base import Family
from models.lora import LoraSpec
from models.training import noise
from models.training.batches import Batches
from models.training.equations import error
from models.training.settings import TrainSettings
from models.training.step import learning_rate
from models.training.train_data import TrainData
from models.training.trainer import TrainJob, train
from tests.models.conftest import prediction_and_target

Tune = Callable[..., TrainSettings]
Make = Callable[[], nn.Module]


def test_learning_rate_rises_then_falls_to_zero(tune: Tune) -> None:
    settings = tune(steps=100, warmup=10, lr=1.0)
    rates = [learning_rate(settings, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(rates[9], rel=0.03)
    assert rates[-1] < 1e-3
    assert all(a >= b for a, b in pairwise(rates[10:]))
    assert learning_rate(tune(schedule="constant", warmup=0, lr=0.5), 5) == 0.5


def test_the_optimiser_is_adamw_at_the_scheduled_rate_with_clipped_gradients_and_decay(
    family: Family, make_transformer: Make, train_data: TrainData, tune: Tune
) -> None:
    """Three steps against PyTorch's own AdamW, by hand: rate, norm and decay are each seen in the weights."""
    settings = tune(
        objective="sft", steps=3, batch_size=3, lr=1e-2, warmup=2, weight_decay=0.3, max_grad_norm=0.01
    )
    found = lora.read(train(make_transformer(), family, TrainJob(train_data, settings, "b")).adapter).tensors

    network = make_transformer().eval()
    spec = LoraSpec(settings.rank, settings.alpha, family.lora_targets)
    held = lora.attach(network, spec, noise.seed_of(settings.seed, "adapter")).parameters()
    optimizer = torch.optim.AdamW(held.values(), betas=(0.9, 0.999))
    batches = Batches(train_data, settings, torch.device("cpu"))
    # warm-up over two steps, times the cosine over three
    for step, rate in enumerate((0.5 * 1.0, 1.0 * 0.75, 1.0 * 0.25)):
        rows = batches.at(step).per_clip()
        x0, embeds = batches.inputs(rows)
        pair = prediction_and_target(family, network, x0, embeds, rows.sigma, rows.noise)
        slopes = torch.autograd.grad(error(*pair).mean(), list(held.values()))
        norm = torch.cat([slope.flatten() for slope in slopes]).norm().item()
        assert norm > 0.01, "or nothing would be clipped"
        for parameter, slope in zip(held.values(), slopes, strict=True):
            parameter.grad = slope * (0.01 / norm)
        for group in optimizer.param_groups:
            group.update(lr=1e-2 * rate, weight_decay=0.3)
        optimizer.step()
    for name, parameter in held.items():
        torch.testing.assert_close(found[name], parameter.detach(), rtol=1e-3, atol=1e-5)
