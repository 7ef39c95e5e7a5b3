"""Random choices of training: which clips, which noise level, which noise. All are functions of (seed, step).

Nothing here keeps state, so a resumed run draws exactly what an uninterrupted one would have drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from data.keys import digest
from models.training.settings import TrainSettings

Indices = npt.NDArray[np.int64]

# Quantiles are kept off 0 and 1, where the logit-normal's noise level is exactly 0 or 1: no signal there.
_EDGE: Final = 1e-4


def seed_of(*what: int | str) -> int:
    """A 63-bit seed that is a function of `what` alone."""
    return int(digest(list(what))[:16], 16) >> 1


def batch_at(seed: int, step: int, batch_size: int, count: int) -> Indices:
    """Which of `count` items the batch of `step` holds, [batch_size].

    The items are gone through epoch by epoch, each in a fresh order, so all are seen equally often; a batch
    may span two epochs, and repeats an item only across that border or if batch_size > count.
    """
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    orders = {
        e: np.random.default_rng(seed_of(seed, "order", int(e))).permutation(count)
        for e in set(positions // count)
    }
    return np.array([orders[p // count][p % count] for p in positions], dtype=np.int64)


def sigmas_at(settings: TrainSettings, step: int, count: int) -> Tensor:
    """Noise levels of a step, float32 [count] in (0, 1); stratified: one from each of `count` shares."""
    rng = np.random.default_rng(seed_of(settings.seed, "sigma", step))
    quantiles = rng.random(count)
    if settings.stratified:
        quantiles = (rng.permutation(count) + quantiles) / count
    return quantile_to_sigma(settings, quantiles)


def noise_at(seed: int, step: int, shape: Sequence[int], device: torch.device) -> Tensor:
    """Noise of a step, float32 `shape`, drawn on `device` (CPU and GPU generators differ)."""
    generator = torch.Generator(device).manual_seed(seed_of(seed, "noise", step))
    return torch.randn(tuple(shape), generator=generator, device=device)


def draws_at(settings: TrainSettings, step: int, count: int) -> Indices:
    """Which of the K fixed draws each row of a step uses, [count] in [0, K): as evenly as K allows."""
    rng = np.random.default_rng(seed_of(settings.seed, "draw", step))
    return (
        (rng.permutation(count) + rng.integers(settings.fixed_noise_samples)) % settings.fixed_noise_samples
    ).astype(np.int64)


def fixed_sigma(settings: TrainSettings, prompt_id: str, draw: int) -> float:
    """Noise level of draw k of a prompt: somewhere in the k-th of K equal shares of the distribution.

    Clips of one prompt share their draws, so both halves of any pair can use draw k.
    """
    jitter = np.random.default_rng(seed_of(settings.seed, "fixed sigma", prompt_id, draw)).random()
    return float(quantile_to_sigma(settings, np.array([(draw + jitter) / settings.fixed_noise_samples]))[0])


def fixed_noise(settings: TrainSettings, prompt_id: str, draw: int, shape: Sequence[int]) -> Tensor:
    """Noise of draw k of a prompt, float32 `shape`, on the CPU so that it is one and the same everywhere."""
    generator = torch.Generator("cpu").manual_seed(seed_of(settings.seed, "fixed noise", prompt_id, draw))
    return torch.randn(tuple(shape), generator=generator)


def dropped_at(settings: TrainSettings, step: int, count: int) -> npt.NDArray[np.bool_]:
    """Which rows of a step are trained without their prompt, [count]."""
    rng = np.random.default_rng(seed_of(settings.seed, "prompt dropout", step))
    dropped: npt.NDArray[np.bool_] = rng.random(count) < settings.prompt_dropout
    return dropped


def quantile_to_sigma(settings: TrainSettings, quantiles: npt.NDArray[np.float64]) -> Tensor:
    """Noise levels at quantiles of the settings' distribution, shifted as the sampler shifts, float32.

    Where `sigma_range` cuts the distribution, quantiles are of what is left of it: levels lie in [low, high).
    """
    q = torch.from_numpy(quantiles).clamp(_EDGE, 1 - _EDGE)
    low, high = settings.sigma_range
    if (low, high) == (0.0, 1.0):
        return _level(settings, q).float()
    first, last = (_quantile(settings, bound) for bound in (low, high))
    level = _level(settings, first + (last - first) * q).float()
    return level.clamp(_bound(low), torch.nextafter(_bound(high), torch.tensor(0.0)))


def _bound(sigma: float) -> Tensor:
    """The least float32 that is not below `sigma`."""
    near = torch.tensor(sigma, dtype=torch.float32)
    return near if float(near) >= sigma else torch.nextafter(near, torch.tensor(1.0))


def _level(settings: TrainSettings, q: Tensor) -> Tensor:
    if settings.timestep_sampling == "logit_normal":
        q = torch.sigmoid(settings.logit_mean + settings.logit_std * torch.special.ndtri(q))
    return settings.shift * q / (1 + (settings.shift - 1) * q)


def _quantile(settings: TrainSettings, sigma: float) -> float:
    """Inverse of `_level`: the share of the distribution that lies below `sigma`."""
    unshifted = torch.tensor(sigma / (settings.shift - (settings.shift - 1) * sigma), dtype=torch.float64)
    if settings.timestep_sampling == "uniform":
        return float(unshifted)
    return float(torch.special.ndtr((torch.logit(unshifted) - settings.logit_mean) / settings.logit_std))
