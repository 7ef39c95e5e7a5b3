"""Objectives of single clips with labels, against the published formulas."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.training.equations import DEAD, SATURATED, clip_logs, error, logit_logs, unpaired_anchor
from models.training.objectives.kto import class_weights, kto_loss, reference_point
from models.training.objectives.nft import nft_loss, optimality
from models.training.objectives.sft import sft_loss


def batch(count: int = 12, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Errors of policy and reference, labels of both kinds."""
    draw = torch.Generator().manual_seed(seed)
    policy, reference = (0.2 + 0.01 * torch.randn(count, generator=draw) for _ in range(2))
    return policy, reference, torch.arange(count) % 3 == 0


def published_kto(e: torch.Tensor, e_ref: torch.Tensor, w: torch.Tensor, beta: float) -> torch.Tensor:
    """Equation 8 of arXiv 2404.04465 with U = sigmoid, as its training script has it: log p is -e, and Q_ref is the
    mean log ratio of the batch, at least 0, without gradient. Minimised: 1 - U."""
    log_ratio = -e - -e_ref
    q_ref = torch.clamp(log_ratio.mean(), min=0.0).detach()
    utility = torch.sigmoid((2 * w.float() - 1) * beta * (log_ratio - q_ref))
    return (1 - utility).mean()


@pytest.mark.parametrize("beta", [1.0, 500.0, 5000.0])
@pytest.mark.parametrize(
    "shift", [0.02, -0.02], ids=["worse than the reference", "better than the reference"]
)
def test_kto_and_its_gradient_equal_autograd_of_the_published_formula(beta: float, shift: float) -> None:
    policy, reference, desirable = batch()
    policy = (policy + shift).requires_grad_()
    published = published_kto(policy, reference, desirable, beta / 2)  # the published code has no half
    (expected,) = torch.autograd.grad(published, policy)
    point = reference_point(policy, reference, beta)
    assert (point > 0) == (shift < 0)
    ours = kto_loss(policy, reference, desirable, torch.ones(12), beta, point)
    (slope,) = torch.autograd.grad(ours, policy)
    assert torch.allclose(ours, published, rtol=1e-6)
    assert torch.allclose(slope, expected, rtol=1e-4, atol=1e-9 * beta)


def test_kto_gradient_by_hand() -> None:
    # dL/de = lambda w beta/2 s (1 - s) / N, s = sigmoid(w (-beta/2 (e - e_ref) - z))
    policy = torch.tensor([0.30, 0.10], requires_grad=True)
    reference, desirable = torch.tensor([0.20, 0.20]), torch.tensor([True, False])
    weights, beta, point = torch.tensor([1.0, 2.0]), 10.0, torch.tensor(0.25)
    (slope,) = torch.autograd.grad(kto_loss(policy, reference, desirable, weights, beta, point), policy)
    chosen, rejected = (1 / (1 + math.exp(-x)) for x in (-5 * 0.1 - 0.25, -(5 * 0.1 - 0.25)))
    by_hand = [1 * 5 * chosen * (1 - chosen) / 2, -2 * 5 * rejected * (1 - rejected) / 2]
    assert slope.tolist() == pytest.approx(by_hand, rel=1e-5)


def test_the_reference_point_is_a_divergence_and_takes_no_gradient() -> None:
    policy, reference, _ = batch()
    better, worse = (policy - 0.05).requires_grad_(), (policy + 0.05).requires_grad_()
    assert reference_point(worse, reference, 100.0).item() == 0
    point = reference_point(better, reference, 100.0)
    assert point.item() == pytest.approx(-50 * (better - reference).mean().item(), rel=1e-5)
    assert not point.requires_grad


def test_class_weights_give_accepted_clips_their_share_of_the_loss() -> None:
    desirable = torch.tensor([True] * 3 + [False] * 9)
    weights = class_weights(desirable, 0.8)
    assert weights.mean().item() == pytest.approx(1.0)
    assert (weights[desirable].sum() / weights.sum()).item() == pytest.approx(0.8)
    assert class_weights(torch.ones(4, dtype=torch.bool), 0.8).tolist() == [1.0] * 4


def test_nft_is_equation_five_number_by_number() -> None:
    draw = torch.Generator().manual_seed(2)
    v, v_old, v_th = (torch.randn(5, 3, 2, 2, 2, generator=draw) for _ in range(3))
    r, beta = torch.rand(5, generator=draw), 0.4
    plus, minus = (1 - beta) * v_old + beta * v_th, (1 + beta) * v_old - beta * v_th
    expected = (
        r * (plus - v).square().flatten(1).mean(1) + (1 - r) * (minus - v).square().flatten(1).mean(1)
    ).mean()
    assert nft_loss(v_th, v_old, v, r, beta).item() == pytest.approx(expected.item(), rel=1e-5)


def test_nft_with_beta_one_and_all_clips_accepted_is_plain_finetuning() -> None:
    draw = torch.Generator().manual_seed(3)
    v, v_old, v_th = (torch.randn(4, 2, 1, 3, 3, generator=draw) for _ in range(3))
    assert torch.allclose(nft_loss(v_th, v_old, v, torch.ones(4), 1.0), sft_loss(error(v_th, v)))


def test_optimality_by_hand() -> None:
    # prompt 7: one of two accepted; prompt 3: one of four. Z = std of all six labels = sqrt(2/9)
    labels = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0, 0.0])
    found = optimality(labels, torch.tensor([7, 7, 3, 3, 3, 3]))
    z = math.sqrt(2 / 9)
    centred = [0.5, -0.5, 0.75, -0.25, -0.25, -0.25]
    assert found.tolist() == pytest.approx([0.5 + 0.5 * max(-1.0, min(1.0, c / z)) for c in centred])


def test_mistake_21_a_prompt_without_contrast_gets_a_half_and_not_noise() -> None:
    labels = torch.tensor([1.0, 1.0, 1.0, 0.0])
    found = optimality(labels, torch.tensor([0, 0, 1, 1]))
    assert found[:2].tolist() == [0.5, 0.5]
    assert optimality(torch.ones(3), torch.tensor([0, 1, 1])).tolist() == [0.5] * 3


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), min_size=1, max_size=40))
def test_optimality_is_a_probability_and_accepted_clips_have_more_of_it(rows: list[tuple[bool, int]]) -> None:
    labels = torch.tensor([float(label) for label, _ in rows])
    prompts = torch.tensor([prompt for _, prompt in rows])
    found = optimality(labels, prompts)
    assert bool(((found >= 0) & (found <= 1)).all())
    for prompt in prompts.unique():
        own = prompts == prompt
        accepted, rejected = found[own & (labels == 1)], found[own & (labels == 0)]
        assert not len(accepted) or not len(rejected) or accepted.min() > rejected.max()


def test_the_unpaired_anchor_is_linear_in_the_batch() -> None:
    errors, _, desirable = batch()
    share = 1 / 3
    whole = unpaired_anchor(errors, desirable, share)
    assert whole.item() == pytest.approx(errors[desirable].mean().item(), rel=1e-5)
    parts = [unpaired_anchor(e, d, share) for e, d in zip(errors.split(2), desirable.split(2), strict=True)]
    assert whole.item() == pytest.approx(torch.stack(parts).mean().item(), rel=1e-5)


def test_logs_of_single_clips_are_sums_over_their_kind() -> None:
    policy, reference, desirable = batch()
    logs = clip_logs(policy, desirable, reference, 100.0)
    for kind, mask in (("chosen", desirable), ("rejected", ~desirable)):
        share = logs[f"share/{kind}"]
        assert (logs[f"error/{kind}"] / share).item() == pytest.approx(policy[mask].mean().item(), rel=1e-5)
        gap = (policy - reference)[mask].mean().item()
        assert (logs[f"gap/{kind}"] / share).item() == pytest.approx(gap, rel=1e-4, abs=1e-7)
        assert (logs[f"rewards/{kind}"] / share).item() == pytest.approx(-50 * gap, rel=1e-4, abs=1e-5)


def test_saturated_and_dead_are_one_per_cent_of_the_gradients_weight() -> None:
    logs = logit_logs(torch.tensor([5.0, -5.0, 1.0, 0.01]))
    assert logs["saturated"].item() == 0.5
    assert logs["dead"].item() == 0.25
    edge = torch.tensor(SATURATED)
    assert torch.sigmoid(-edge).item() == pytest.approx(0.01)
    assert torch.sigmoid(torch.tensor(DEAD)).item() / 0.5 == pytest.approx(1.01, abs=1e-3)
