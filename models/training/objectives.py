"""The objectives, beside their equations. Tensors in, tensors out: no model, no optimiser, no settings.

Notation: x0 latent, n noise, sigma noise level; e = mean over all non-batch axes of (prediction - target)^2,
in float32. w and l are the chosen and rejected clip of a pair, with the *same* sigma and n; e_ref is the
reference's error on the very same input. -e stands in for log p up to constants (the diffusion bound), so
beta absorbs them: every beta here is for mean-reduced errors. docs/objectives.md derives what follows.
"""

from __future__ import annotations

import math
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

# A pair (or clip) is saturated when its weight in the gradient has fallen below 1% of what it may be, and
# dead while that weight is within 1% of where it began: |logit| beyond or below these.
SATURATED: Final = math.log(99)
DEAD: Final = 0.02


def error(prediction: Tensor, target: Tensor, frames: Tensor | None = None) -> Tensor:
    """e = mean over all non-batch axes of (prediction - target)^2, in float32 whatever the network's dtype.

    Args:
        prediction, target: [B, ...] of one shape.
        frames: [B, T] weights of latent frames, of mean 1 a row (`frame_weights`), for tensors
            [B, C, T, H, W]: then e is the mean over the weighted frames. Weights of 1 change no bit.

    Returns:
        [B] float32. Differences between errors are of order 1e-4: below what bfloat16 can tell apart.
    """
    if prediction.shape != target.shape:
        raise ValueError(
            f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ in shape"
        )
    squares = (prediction.float() - target.float()).square()
    if frames is not None:
        squares = squares * frames[:, None, :, None, None]
    return squares.flatten(1).mean(1)


def frame_weights(mask: Tensor) -> Tensor:
    """T / (frames kept) on the latent frames that a mask keeps and 0 elsewhere: float32 [B, T], of mean 1.

    With them `error` is the mean over the kept frames alone: a pair is compared where its clips differ, as
    DenseDPO (arXiv 2506.03517) compares them segment by segment.

    Args:
        mask: bool [B, T], at least one frame in each row.
    """
    return mask * (mask.shape[1] / mask.sum(1, keepdim=True))


def sft(errors: Tensor) -> Tensor:
    """L = mean(e): over accepted clips filtered finetuning, the limit of rwr at beta -> 0; over all clips
    ("unfiltered") the control that shows what training on one's own samples does by itself.

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


def unpaired_anchor(errors: Tensor, desirable: Tensor, share: float) -> Tensor:
    """Mean of e over accepted clips, estimated from a batch that holds them in the data's proportion.

    Divided by the share of the whole data and not of the batch, so that it is linear in the batch: parts of a
    batch add up, and a part without an accepted clip contributes nothing.

    Args:
        errors: [B].
        desirable: bool [B].
        share: of accepted clips in the data, in (0, 1]; at 0 the anchor is 0.
    """
    return (errors * desirable).mean() / share if share > 0 else errors.sum() * 0


def reference_point(policy: Tensor, reference: Tensor, beta: float) -> Tensor:
    """z = max(0, mean of -beta/2 (e - e_ref)) over the batch, a scalar without gradient.

    Q_ref of Diffusion-KTO (arXiv 2404.04465, section 4.1 below equation 8): the KL divergence of policy and
    reference, which is never negative. Its published code estimates it from the batch itself, as here.

    Args:
        policy, reference: errors [B].
        beta: above 0.
    """
    return implicit_rewards(policy, reference, beta).mean().clamp(min=0).detach()


def kto(
    policy: Tensor, reference: Tensor, desirable: Tensor, weights: Tensor, beta: float, point: Tensor
) -> Tensor:
    """L = mean of lambda (1 - sigmoid(w (-beta/2 (e - e_ref) - z))), w = 1 for accepted and -1 for rejected.

    Diffusion-KTO, equation 8 of arXiv 2404.04465 with the Kahneman-Tversky utility U = sigmoid (section 4.2)
    and lambda of KTO (equation 5 there). beta/2 as in `dpo`, so that one beta means one thing in both; the
    published code omits the half: its beta is half of ours.

    Args:
        policy, reference: errors [B].
        desirable: bool [B].
        weights: lambda, [B], see `class_weights`.
        beta: above 0.
        point: z, see `reference_point`.
    """
    return (weights * (1 - utility_logits(policy, reference, desirable, beta, point).sigmoid())).mean()


def utility_logits(
    policy: Tensor, reference: Tensor, desirable: Tensor, beta: float, point: Tensor
) -> Tensor:
    """w (-beta/2 (e - e_ref) - z), [B]: what `kto` takes the sigmoid of."""
    sign = desirable.to(policy.dtype) * 2 - 1
    return sign * (implicit_rewards(policy, reference, beta) - point)


def class_weights(desirable: Tensor, share: float) -> Tensor:
    """lambda: weights of mean 1 under which accepted clips make up `share` of the loss.

    Diffusion-KTO draws accepted clips with probability gamma (section 4.2); weighting them instead has the
    same expectation and keeps every clip in every epoch.

    Args:
        desirable: bool [N]; if all are alike, every weight is 1.
        share: gamma, in (0, 1).
    """
    held = float(desirable.double().mean()) if len(desirable) else 0.0
    if held in (0.0, 1.0):
        return torch.ones(len(desirable))
    return torch.where(desirable, share / held, (1 - share) / (1 - held)).float()


def optimality(rewards: Tensor, prompts: Tensor) -> Tensor:
    """r = 1/2 + 1/2 clip((reward - mean of the prompt) / Z, -1, 1), Z the standard deviation of all rewards.

    DiffusionNFT (arXiv 2509.16117, section 3.3, "Optimality Reward"). A prompt whose clips are all alike gets
    1/2 throughout: its two branches cancel, and it teaches nothing but to stay.

    Args:
        rewards: [N].
        prompts: [N] int, which prompt each clip belongs to.
    """
    _, group = prompts.unique(return_inverse=True)
    groups = int(group.max()) + 1 if len(group) else 0
    values = rewards.double()
    zeros = torch.zeros(groups, dtype=torch.float64)
    mean = zeros.index_add(0, group, values) / zeros.index_add(0, group, torch.ones_like(values))
    scale = float(values.std(unbiased=False)) if len(values) else 0.0
    centred = values - mean[group]
    if scale == 0:
        return torch.full_like(rewards, 0.5)
    return (0.5 + 0.5 * (centred / scale).clamp(-1, 1)).to(rewards.dtype)


def nft(prediction: Tensor, reference: Tensor, target: Tensor, optimality: Tensor, beta: float) -> Tensor:
    """L = mean of r |v+ - v|^2 + (1 - r) |v- - v|^2, v+ = (1-b) v_old + b v_th, v- = (1+b) v_old - b v_th.

    DiffusionNFT, equation 5 of arXiv 2509.16117, with |.|^2 the mean over axes as everywhere here. With
    d = b (v_th - v_old) and u = v - v_old it is r |d - u|^2 + (1 - r) |d + u|^2, least at

        v_th = v_old + E[(2 r - 1) u | x] / b

    which is v_old + (2 / b) E[r u | x] = v_old + (2 / b) Delta (equation 6) where v_old is right on average,
    E[u | x] = 0. Clips sampled with guidance are not v_old's own, so E[u | x] is not 0 there; `optimality`
    centred within the prompt keeps that part out to first order.

    Args:
        prediction, reference, target: v_th, v_old, v: [B, ...] of one shape.
        optimality: r, [B] in [0, 1].
        beta: b, in (0, 1].
    """
    step = beta * (prediction.float() - reference.float())
    apart = target.float() - reference.float()
    return (optimality * error(step, apart) + (1 - optimality) * error(-step, apart)).mean()


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
            **logit_logs(margin),
        }


def logit_logs(logits: Tensor) -> dict[str, Tensor]:
    """How far the objective is: `logit/square` (mean of its square), `saturated` and `dead` (shares).

    Args:
        logits: [N], positive where the objective has what it wants.
    """
    size = logits.abs()
    return {
        "logit/square": logits.square().mean(),
        "saturated": (size > SATURATED).float().mean(),
        "dead": (size < DEAD).float().mean(),
    }


def unpaired_logs(
    policy: Tensor, desirable: Tensor, reference: Tensor | None = None, beta: float | None = None
) -> dict[str, Tensor]:
    """Health of a batch of single clips, accepted and rejected apart.

    Every value is a *sum over its kind divided by the batch size*, so that parts of a batch add up; divided
    by `share/chosen` or `share/rejected` it is the mean over the kind. Names as in `dpo_logs`.

    Args:
        policy: errors [B].
        desirable: bool [B].
        reference: errors [B]; without it there are no gaps.
        beta: of the implicit rewards; without it there are none.
    """
    with torch.no_grad():
        logs = {}
        for kind, mask in (("chosen", desirable), ("rejected", ~desirable)):
            logs[f"share/{kind}"] = mask.float().mean()
            logs[f"error/{kind}"] = (policy * mask).mean()
            if reference is not None:
                logs[f"gap/{kind}"] = ((policy - reference) * mask).mean()
                if beta is not None:
                    logs[f"rewards/{kind}"] = (implicit_rewards(policy, reference, beta) * mask).mean()
        return logs
