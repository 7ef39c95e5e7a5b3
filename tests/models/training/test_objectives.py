import math

import pytest
import torch
import torch.nn.functional as F

from models.training.equations import anchor, effective_sample_size, error
from models.training.objectives.dpo import dpo_loss, margins, pair_logs
from models.training.objectives.rwr import rwr_loss
from models.training.objectives.sft import sft_loss


def errors(*rows: tuple[float, float]) -> torch.Tensor:
    return torch.tensor(rows)


def test_error_is_the_mean_over_all_axes_but_the_batch() -> None:
    # pitfall: averaging dims 1, 2, 3 of a video leaves the width, and a preference per image column
    draw = torch.Generator().manual_seed(0)
    a, b = (torch.randn(3, 4, 5, 6, 7, generator=draw) for _ in range(2))
    got = error(a, b)
    assert got.shape == (3,)
    assert got[1].item() == pytest.approx(((a[1] - b[1]) ** 2).sum().item() / (4 * 5 * 6 * 7), rel=1e-5)


def test_error_is_float32_whatever_the_network_computes_in() -> None:
    # pitfall: errors differ by 1e-4, which bfloat16 cannot tell apart
    target = torch.zeros(1, 1000, dtype=torch.bfloat16)
    prediction = torch.full((1, 1000), 1.0, dtype=torch.bfloat16)
    nudged = prediction.clone()
    nudged[0, 0] = 1.0625
    first, second = error(prediction, target), error(nudged, target)
    assert first.dtype == torch.float32
    assert 1e-4 < (second - first).item() < 2e-4


def test_error_refuses_to_broadcast() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        error(torch.zeros(2, 3), torch.zeros(2, 1))


def test_sft_and_rwr_by_hand() -> None:
    e = torch.tensor([1.0, 2.0, 4.0])
    assert sft_loss(e).item() == pytest.approx(7 / 3)
    assert rwr_loss(e, torch.tensor([1.0, 0.0, 0.5])).item() == pytest.approx((1 + 0 + 2) / 3)


def test_rwr_with_binary_rewards_is_filtered_sft_up_to_the_acceptance_rate() -> None:
    e = torch.tensor([1.0, 2.0, 4.0, 8.0])
    r = torch.tensor([1.0, 0.0, 1.0, 0.0])
    assert rwr_loss(e, r).item() == pytest.approx(0.5 * sft_loss(e[r > 0]).item())


def test_effective_sample_size_tells_how_many_clips_count() -> None:
    assert effective_sample_size(torch.ones(10)) == pytest.approx(10)
    assert effective_sample_size(torch.tensor([1.0, 1.0, 0.0, 0.0])) == pytest.approx(2)
    assert effective_sample_size(torch.zeros(3)) == 0
    r = torch.tensor([1.0, 0.0, 0.0, 0.0])
    warm, cold = (effective_sample_size((r / beta).exp()) for beta in (10.0, 0.05))
    assert warm > 3.9
    assert cold == pytest.approx(1.0, abs=1e-3)


def published_diffusion_dpo(model: torch.Tensor, ref: torch.Tensor, beta_dpo: float) -> torch.Tensor:
    """The Diffusion-DPO training script, on errors whose first half are winners."""
    model_losses_w, model_losses_l = model.chunk(2)
    model_diff = model_losses_w - model_losses_l
    ref_losses_w, ref_losses_l = ref.chunk(2)
    ref_diff = ref_losses_w - ref_losses_l
    scale_term = -0.5 * beta_dpo
    inside_term = scale_term * (model_diff - ref_diff)
    return -1 * F.logsigmoid(inside_term).mean()


@pytest.mark.parametrize("beta", [1.0, 500.0, 5000.0])
def test_dpo_equals_the_published_formula_number_by_number(beta: float) -> None:
    draw = torch.Generator().manual_seed(1)
    policy, reference = (0.2 + 0.01 * torch.rand(16, 2, generator=draw) for _ in range(2))
    ours = dpo_loss(policy, reference, beta)
    assert torch.allclose(
        ours, published_diffusion_dpo(policy.T.reshape(-1), reference.T.reshape(-1), beta), rtol=1e-4
    )


def test_dpo_by_hand() -> None:
    policy, reference = errors((0.10, 0.30)), errors((0.12, 0.25))
    # (e_w - e_w_ref) - (e_l - e_l_ref) = -0.02 - 0.05
    assert dpo_loss(policy, reference, 10.0).item() == pytest.approx(math.log1p(math.exp(-0.35)), rel=1e-5)


def test_dpo_takes_the_log_sigmoid_before_the_mean() -> None:
    # pitfall: averaging logits over the batch first lets an easy pair pay for a hard one
    policy, reference = errors((0.0, 1.0), (1.0, 0.0)), torch.zeros(2, 2)
    assert dpo_loss(policy, reference, 10.0).item() == pytest.approx((5 + 2 * math.log1p(math.exp(-5))) / 2)
    assert -F.logsigmoid(margins(policy, reference, 10.0).mean()).item() == pytest.approx(math.log(2))


def test_dpo_at_the_reference_is_log_two_with_the_gradient_of_half_beta_over_two() -> None:
    policy = errors((0.4, 0.5), (0.2, 0.1)).requires_grad_()
    loss = dpo_loss(policy, policy.detach(), 100.0)
    assert loss.item() == pytest.approx(math.log(2))
    (slope,) = torch.autograd.grad(loss, policy)
    assert slope.tolist() == [[12.5, -12.5], [12.5, -12.5]]


def test_dpo_survives_margins_that_would_overflow() -> None:
    policy, reference = errors((1e3, 0.0), (0.0, 1e3)), torch.zeros(2, 2)
    loss = dpo_loss(policy, reference, 5000.0)
    assert loss.item() == pytest.approx(0.5 * 2500 * 1e3)


def test_anchor_looks_at_the_chosen_clip_only() -> None:
    assert anchor(errors((0.2, 9.0), (0.4, 9.0))).item() == pytest.approx(0.3)


def test_logs_bear_trls_names_and_tell_winner_from_loser() -> None:
    policy, reference = errors((0.30, 0.90), (0.10, 0.20)), errors((0.20, 0.50), (0.20, 0.20))
    logs = {name: value.item() for name, value in pair_logs(policy, reference, 2.0).items()}
    assert logs["rewards/chosen"] == pytest.approx(0.0, abs=1e-6)
    assert logs["rewards/rejected"] == pytest.approx(-0.2)
    assert logs["rewards/margins"] == pytest.approx(0.2)
    assert logs["rewards/accuracies"] == 1.0
    assert logs["error/chosen"] == pytest.approx(0.2)
    assert logs["error/rejected"] == pytest.approx(0.55)
    assert logs["gap/rejected"] == pytest.approx(0.2)


def test_likelihood_displacement_is_seen_although_the_loss_falls() -> None:
    # pitfall: both errors explode, the loser's faster: the loss is near 0 and the winner is being forgotten
    reference = errors((0.2, 0.2), (0.2, 0.2))
    policy = errors((0.5, 0.9), (0.4, 0.8))
    logs = pair_logs(policy, reference, 100.0)
    assert dpo_loss(policy, reference, 100.0).item() < 1e-6
    assert logs["displaced"].item() == 1.0
    assert logs["gap/chosen"].item() > 0.2


def test_a_tie_is_not_accurate() -> None:
    tied = errors((0.2, 0.2))
    assert pair_logs(tied, tied, 100.0)["rewards/accuracies"].item() == 0.0
