"""The loss of a micro-batch put together: what each term pulls, and sdpo's hold on the rejected clips."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.training.batches import Units
from models.training.equations import frame_weights
from models.training.loss import Passes, loss_of
from models.training.settings import TrainSettings

SHAPE = (2, 5, 3, 3)
PAIRS = 4
MASK = torch.tensor([[True, False, True, True, False]] * PAIRS)


def seen() -> Passes:
    """Chosen clips, then their rejected ones: residuals that agree in two pairs, and that do not in two."""
    draw = torch.Generator().manual_seed(4)
    target = torch.randn(2 * PAIRS, *SHAPE, generator=draw)
    apart = 0.3 * torch.randn(PAIRS, *SHAPE, generator=draw)
    other = 0.2 * torch.randn(PAIRS, *SHAPE, generator=draw)
    toward = torch.tensor([3.0, 0.5, -0.5, -3.0]).view(-1, 1, 1, 1, 1)
    residuals = torch.cat([apart, toward * apart + other])
    return Passes(
        (target + residuals).requires_grad_(), target, reference_error=torch.full((2 * PAIRS,), 0.2)
    )


def rows(frames: Tensor | None = None, pairs: bool = True) -> Units:
    halves = 2 if pairs else 1
    return Units(
        torch.zeros(PAIRS, halves, dtype=torch.int64), torch.ones(PAIRS),
        torch.tensor([[True, False][:halves]] * PAIRS), torch.full((PAIRS,), 0.5), torch.zeros(PAIRS, *SHAPE),
        torch.zeros(PAIRS, dtype=torch.int64), torch.zeros(PAIRS, dtype=torch.bool), frames,
    ).per_clip()  # fmt: skip


def slopes(passes: Passes, units: Units, **said: Any) -> tuple[dict[str, float], np.ndarray]:
    """Logs of a loss, and its gradient in the network's output as numbers."""
    loss, logs = loss_of(TrainSettings(**said), units, passes, 1.0, None)
    (slope,) = torch.autograd.grad(loss, passes.prediction)
    return {name: value.item() for name, value in logs.items()}, slope.double().numpy()


def by_hand(passes: Passes, mu: float, kept: np.ndarray) -> list[float]:
    """lambda of each pair, in numpy: gradients of errors over the kept frames, one pair after the other."""
    apart = (passes.prediction - passes.target).detach().double().numpy()[:, :, kept]
    found = []
    for winner, loser in zip(apart[:PAIRS], apart[PAIRS:], strict=True):
        up, down = (2 * one / one.size for one in (winner, loser))
        dot = float((up * down).sum())
        found.append(min(1.0, (1 - mu) * float((up * up).sum()) / dot) if dot > 0 else 1.0)
    return found


@pytest.mark.parametrize("mu", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("mask", [None, MASK])
def test_sdpo_scales_the_rejected_clips_gradient_of_dpo_pair_by_pair(mu: float, mask: Tensor | None) -> None:
    passes, units = seen(), rows(None if mask is None else frame_weights(mask))
    plain, before = slopes(passes, units, objective="dpo", beta=9.0)
    logs, after = slopes(passes, units, objective="sdpo", beta=9.0, sdpo_mu=mu)
    scale = by_hand(passes, mu, np.arange(5) if mask is None else np.flatnonzero(mask[0]))
    assert scale[0] < 1, "a rejected clip that pulls along with the chosen one, and harder, is held back"
    assert scale[2:] == [1, 1], "one that pulls another way is not"
    np.testing.assert_array_equal(after[:PAIRS], before[:PAIRS])
    for pair, factor in enumerate(scale):
        np.testing.assert_allclose(after[PAIRS + pair], factor * before[PAIRS + pair], rtol=1e-5, atol=1e-12)
    assert logs["lambda"] == pytest.approx(np.mean(scale), rel=1e-5)
    assert logs["held_back"] == np.mean(np.array(scale) < 1)
    # Values are those of dpo: only the way down is another one.
    assert logs["sdpo"] == plain["dpo"]
    for name in ("rewards/margins", "gap/rejected", "logit/square"):
        assert logs[name] == plain[name]


def test_a_step_that_both_halves_share_does_not_raise_the_chosen_clips_error() -> None:
    passes, units, mu = seen(), rows(), 0.25
    (chosen,) = torch.autograd.grad(
        (passes.prediction - passes.target)[:PAIRS].square().sum(), passes.prediction
    )
    own = chosen[:PAIRS].double().numpy()
    changes = {}
    for objective in ("dpo", "sdpo"):
        _, slope = slopes(passes, units, objective=objective, beta=9.0, sdpo_mu=mu)
        # What one output that both halves were made by would do to the chosen clip's error, and what it would
        # if there were no rejected clip.
        step, alone = -(slope[:PAIRS] + slope[PAIRS:]), -slope[:PAIRS]
        changes[objective] = (step * own).sum((1, 2, 3, 4)) / np.abs((alone * own).sum((1, 2, 3, 4)))
    assert changes["dpo"][0] > 1, "dpo forgets the winner of the first pair"
    assert (changes["sdpo"] <= -mu + 1e-6).all()


def test_each_terms_pull_is_the_norm_of_its_gradient() -> None:
    passes = replace(seen(), reference=seen().prediction.detach() + 0.1)
    size = int(np.prod(SHAPE))
    apart = (passes.prediction - passes.target).detach().double().numpy().reshape(2, PAIRS, -1)
    logs, _ = slopes(passes, rows(), objective="dpo", beta=9.0, sft_weight=3.0, kl=2.0)
    assert logs["pull/anchor"] == pytest.approx(
        np.mean(3 * 2 * np.linalg.norm(apart[0], axis=1) / size), rel=1e-5
    )
    # The mean over 2 PAIRS clips: of both halves of a pair at once.
    assert logs["pull/kl"] == pytest.approx(2 * 2 * 0.1 * np.sqrt(2 * size) / (2 * size), rel=1e-4)
    gaps = (apart**2).mean(2) - 0.2
    weight = 1 / (1 + np.exp(-4.5 * (gaps[0] - gaps[1])))
    both = np.sqrt((apart**2).sum((0, 2)))
    assert logs["pull/dpo"] == pytest.approx(np.mean(4.5 * weight * 2 * both / size), rel=1e-5)

    single = Passes(passes.prediction.detach()[:PAIRS].requires_grad_(), passes.target[:PAIRS])
    logs, _ = slopes(single, rows(pairs=False), objective="sft")
    assert logs["pull/sft"] == pytest.approx(np.mean(2 * np.linalg.norm(apart[0], axis=1) / size), rel=1e-5)


def test_terms_that_do_not_pull_and_a_prediction_that_stays_are_seen() -> None:
    passes = replace(seen(), reference=seen().prediction.detach())
    logs, _ = slopes(passes, rows(), objective="dpo", beta=9.0, kl=2.0)
    assert logs["kl"] == logs["pull/kl"] == 0.0 < logs["pull/dpo"]
