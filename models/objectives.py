"""The objectives, beside their equations. Tensors in, tensors out: no model, no optimiser, no settings.

Notation: x0 latent, n noise, sigma noise level; e = mean over all non-batch axes of (prediction - target)^2,
in float32. w and l are the chosen and rejected clip of a pair, with the *same* sigma and n; e_ref is the
reference's error on the very same input. -e stands in for log p up to constants (the diffusion bound), so
beta absorbs them: every beta here is for mean-reduced errors.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def error(prediction: Tensor, target: Tensor) -> Tensor:
    """e = mean over all non-batch axes of (prediction - target)^2, in float32 whatever the network's dtype.

    Args:
        prediction, target: [B, ...] of one shape.

    Returns:
        [B] float32. Differences between errors are of order 1e-4: below what bfloat16 can tell apart.
    """
    if prediction.shape != target.shape:
        raise ValueError(
            f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ in shape"
        )
    return (prediction.float() - target.float()).square().flatten(1).mean(1)


def sft(errors: Tensor) -> Tensor:
    """L = mean(e) over accepted clips: filtered finetuning, the limit of rwr at beta -> 0.

    Args:
        errors: [B].
    """
    return errors.mean()


def rwr(errors: Tensor, weights: Tensor) -> Tensor:
    """L = mean(W e): reward-weighted regression, the forward-EM projection of arXiv 2412.02617.

    Args:
        errors: [B].
        weights: [B], W = r (the paper's simplification, see `identity_weights`) or W = exp(r / beta) /
            Z(prompt) (`exp_weights`). Not divided by their sum: the scale of W is part of the objective.
    """
    return (weights * errors).mean()


def identity_weights(rewards: Tensor) -> Tensor:
    """W = r, the simplification of arXiv 2412.02617: clips with r = 0 drop out, none is pushed away.

    Args:
        rewards: [N] shaped rewards, not negative.
    """
    if bool((rewards < 0).any()):
        raise ValueError("W = r needs rewards that are not negative: shape them first")
    return rewards


def exp_weights(rewards: Tensor, prompts: Tensor, beta: float) -> Tensor:
    """W = exp(r / beta) / Z(c), with Z(c) = mean of exp(r / beta) over the clips of prompt c.

    The exact weight of the KL-regularised optimum p* = p_ref exp(r / beta) / Z (arXiv 2103.17258). Within a
    prompt the weights average 1; a prompt whose clips all have one reward gets weight 1 throughout.

    Args:
        rewards: [N] shaped rewards.
        prompts: [N] int, which prompt each clip belongs to.
        beta: temperature, above 0; small values let the best clips dominate (see `effective_sample_size`).
    """
    if not beta > 0:
        raise ValueError(f"beta is {beta}, it must be above 0")
    _, group = prompts.unique(return_inverse=True)
    groups = int(group.max()) + 1 if len(group) else 0
    scaled = rewards.double() / beta
    # Z is unchanged by a shift within the prompt; the shift keeps exp from overflowing at small beta.
    peak = torch.full((groups,), -torch.inf, dtype=torch.float64).scatter_reduce(0, group, scaled, "amax")
    raised = (scaled - peak[group]).exp()
    total = torch.zeros(groups, dtype=torch.float64).index_add(0, group, raised)
    count = torch.zeros(groups, dtype=torch.float64).index_add(0, group, torch.ones_like(raised))
    return (raised / (total / count)[group]).to(rewards.dtype)


def effective_sample_size(weights: Tensor) -> float:
    """ESS = (sum W)^2 / sum W^2 in [1, N]: how many equally weighted clips W is worth; 0 if all are 0."""
    total = float(weights.double().sum())
    squares = float(weights.double().square().sum())
    return total * total / squares if squares > 0 else 0.0


def dpo(policy: Tensor, reference: Tensor, beta: float) -> Tensor:
    """L = mean over pairs of -logsigmoid(-beta/2 [(e_w - e_w_ref) - (e_l - e_l_ref)]).

    Diffusion-DPO (arXiv 2311.12908), the reverse-BT projection of arXiv 2412.02617, with the constant beta
    that VideoAlign (arXiv 2501.13918) found better than beta (1 - sigma)^2 for flow matching. The log-sigmoid
    is taken pair by pair, then averaged.

    Args:
        policy, reference: errors [pairs, 2], column 0 chosen, column 1 rejected.
        beta: above 0.
    """
    return -F.logsigmoid(margins(policy, reference, beta)).mean()


def implicit_rewards(policy: Tensor, reference: Tensor, beta: float) -> Tensor:
    """-beta/2 (e - e_ref), [pairs, 2]: the reward DPO sees in each clip, up to a constant per prompt."""
    return -0.5 * beta * (policy - reference)


def margins(policy: Tensor, reference: Tensor, beta: float) -> Tensor:
    """Implicit reward of the chosen clip minus that of the rejected one, [pairs]: the logit of DPO."""
    chosen, rejected = implicit_rewards(policy, reference, beta).unbind(1)
    return chosen - rejected


def anchor(policy: Tensor) -> Tensor:
    """mean(e_w): keeps the chosen clips likely where DPO alone may let both errors rise (Reg-DPO).

    Args:
        policy: errors [pairs, 2].
    """
    return policy[:, 0].mean()


def kl(prediction: Tensor, reference: Tensor) -> Tensor:
    """mean over clips of the mean over axes of (prediction - reference prediction)^2.

    The KL divergence between two flows or denoisers, up to a weight per noise level; zero where they agree.

    Args:
        prediction, reference: network outputs [B, ...] on the same inputs.
    """
    return error(prediction, reference).mean()


def dpo_logs(policy: Tensor, reference: Tensor, beta: float) -> dict[str, Tensor]:
    """Health of a DPO batch, named as TRL names them; every value is a scalar.

    `rewards/chosen`, `rewards/rejected`, `rewards/margins` (means of the implicit rewards),
    `rewards/accuracies` (share of pairs with a positive margin; ties are not accurate), the errors of winners
    and losers apart (`error/...` and `gap/...` = error minus reference error) and `displaced`: share of pairs
    whose *chosen* clip became less likely than under the reference, the sign of likelihood displacement.
    """
    with torch.no_grad():
        rewards = implicit_rewards(policy, reference, beta)
        margin = rewards[:, 0] - rewards[:, 1]
        gap = policy - reference
        return {
            "rewards/chosen": rewards[:, 0].mean(),
            "rewards/rejected": rewards[:, 1].mean(),
            "rewards/margins": margin.mean(),
            "rewards/accuracies": (margin > 0).float().mean(),
            "error/chosen": policy[:, 0].mean(),
            "error/rejected": policy[:, 1].mean(),
            "gap/chosen": gap[:, 0].mean(),
            "gap/rejected": gap[:, 1].mean(),
            "displaced": (gap[:, 0] > 0).float().mean(),
        }
