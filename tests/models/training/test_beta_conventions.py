"""What a published beta is here: the rows of docs/objectives.md's table, each computed both ways."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from models.parameterization import Epsilon, FlowMatching, Parameterization, VPrediction
from models.training.equations import error
from models.training.objectives.dpo import margins
from tests.tiny_round import ROOT

SHAPE = (4, 3, 6, 5)  # C, T, H, W
NUMBERS = math.prod(SHAPE)


@pytest.fixture
def told() -> dict[str, Tensor]:
    """Predictions and target of three pairs, in float64: of policy and reference, of chosen and rejected."""
    draw = torch.Generator().manual_seed(3)
    names = ("w", "w_ref", "l", "l_ref", "target_w", "target_l")
    return {name: torch.randn(3, *SHAPE, generator=draw, dtype=torch.float64) for name in names}


def ours(told: dict[str, Tensor], beta: float) -> Tensor:
    """The logit of dpo, as training computes it."""
    policy = torch.stack([error(told[k], told[f"target_{k}"]) for k in ("w", "l")], 1)
    reference = torch.stack([error(told[f"{k}_ref"], told[f"target_{k}"]) for k in ("w", "l")], 1)
    return margins(policy, reference, beta).double()


def squares(told: dict[str, Tensor], name: str) -> Tensor:
    """Squared error of one prediction, summed over the latent: |v_theta - v|^2 of the papers."""
    return ((told[name] - told[f"target_{name[0]}"]) ** 2).flatten(1).sum(1)


def difference(told: dict[str, Tensor]) -> Tensor:
    """The papers' bracket, of sums: (w - w_ref) - (l - l_ref)."""
    w, w_ref, left, l_ref = (squares(told, name) for name in ("w", "w_ref", "l", "l_ref"))
    return (w - w_ref) - (left - l_ref)


def test_published_code_with_means_and_the_half_has_our_beta(told: dict[str, Tensor]) -> None:
    published = -0.5 * 5000 * difference(told) / NUMBERS
    torch.testing.assert_close(ours(told, 5000), published, rtol=1e-5, atol=1e-3)


def test_without_the_half_ours_is_twice_the_published_one(told: dict[str, Tensor]) -> None:
    published = -1000 * difference(told) / NUMBERS
    torch.testing.assert_close(ours(told, 2 * 1000), published, rtol=1e-5, atol=1e-3)


def test_of_sums_ours_is_the_published_one_times_the_numbers_of_a_latent(told: dict[str, Tensor]) -> None:
    published = -0.5 * 3.0 * difference(told)
    torch.testing.assert_close(ours(told, 3.0 * NUMBERS), published, rtol=1e-5, atol=1e-3)


def test_the_papers_t_and_omega_are_inside(told: dict[str, Tensor]) -> None:
    published = -0.002 * 1000 * 1.0 * difference(told)  # -beta T omega, equation 14 of arXiv 2311.12908
    torch.testing.assert_close(ours(told, 2 * 0.002 * 1000 * NUMBERS), published, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("sigma", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("kind", [FlowMatching(), VPrediction()], ids=["flow matching", "v"])
def test_another_target_takes_a_beta_for_its_noise_level(
    told: dict[str, Tensor], kind: Parameterization, sigma: float
) -> None:
    """A network that says v also says the noise: a beta for errors of the noise, in errors of v."""
    level = torch.full((3,), sigma, dtype=torch.float64)
    alpha = math.sqrt(1 - sigma**2)
    by_noise: dict[str, Tensor] = {}
    by_v: dict[str, Tensor] = {}
    for clip in ("w", "l"):
        x0, noise = told[clip], told[f"{clip}_ref"]  # any two tensors
        x = kind.noisy(x0, noise, level)
        by_v[f"target_{clip}"] = kind.target(x0, noise, level)
        by_noise[f"target_{clip}"] = Epsilon().target(x0, noise, level)
        for name, said in ((clip, told[f"target_{clip}"]), (f"{clip}_ref", told[f"target_{clip}"].flip(0))):
            by_v[name] = said
            # The noise in x, if this v were right.
            flow = isinstance(kind, FlowMatching)
            by_noise[name] = x + (1 - sigma) * said if flow else alpha * said + sigma * x
    share = (1 - sigma) ** 2 if isinstance(kind, FlowMatching) else alpha**2
    torch.testing.assert_close(ours(by_noise, 2000), ours(by_v, 2000 * share), rtol=1e-4, atol=1e-2)


def test_the_numbers_that_the_page_derives() -> None:
    page = (ROOT / "docs/objectives.md").read_text("utf-8")
    latent = 16 * 9 * (480 // 8) * (832 // 8)  # Wan2.1, 33 frames
    assert f"{latent:,}" in page
    assert f"{500 / latent:.2g}" in page
    u = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    for shift in (1.0, 8.0):
        sigma = FlowMatching().noisy(u * 0, u * 0 + 1, shift * u / (1 + (shift - 1) * u))  # sigma itself
        assert f"{round(5000 * float(((1 - sigma) ** 2).mean()), -1):,.0f}" in page
