"""What the objectives are made of: errors, implicit rewards, the terms beside them, and what is logged.

Tensors in, tensors out: no model, no optimiser, no settings, and no torch before a tensor is there.

Notation: x0 latent, n noise, sigma noise level; e = mean over all non-batch axes of (prediction - target)^2,
in float32. w and l are the chosen and rejected clip of a pair, with the *same* sigma and n; e_ref is the
reference's error on the very same input. -e stands in for log p up to constants (the diffusion bound), so
beta absorbs them: every beta here is for mean-reduced errors. docs/objectives.md derives what follows.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
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


def prompt_means(values: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
    """Means of `values` [N, ...] over the clips of each prompt, a row a clip, and of how many clips, [N].

    Args:
        prompts: [N] int, which prompt each clip belongs to.
    """
    _, group, count = prompts.unique(return_inverse=True, return_counts=True)
    total = values.new_zeros(len(count), *values.shape[1:]).index_add(0, group, values)
    number = count[group]
    return total[group] / number.view(-1, *[1] * (values.ndim - 1)), number


def effective_sample_size(weights: Tensor) -> float:
    """ESS = (sum W)^2 / sum W^2 in [1, N]: how many equally weighted clips W is worth; 0 if all are 0."""
    total = float(weights.double().sum())
    squares = float(weights.double().square().sum())
    return total * total / squares if squares > 0 else 0.0


def implicit_rewards(policy: Tensor, reference: Tensor, beta: float) -> Tensor:
    """-beta/2 (e - e_ref), [pairs, 2]: the reward DPO sees in each clip, up to a constant per prompt."""
    return -0.5 * beta * (policy - reference)


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


def logit_logs(logits: Tensor) -> dict[str, Tensor]:
    """How far the objective is, see `LOGIT_LOGS`.

    Args:
        logits: [N], positive where the objective has what it wants; without gradient.
    """
    size = logits.abs()
    return {
        "logit/square": logits.square().mean(),
        "logit/max": size.max(),
        "saturated": (size > SATURATED).float().mean(),
        "dead": (size < DEAD).float().mean(),
    }


def clip_logs(
    policy: Tensor, desirable: Tensor, reference: Tensor | None = None, beta: float | None = None
) -> dict[str, Tensor]:
    """Health of a batch of single clips, accepted ("chosen") and rejected apart; without gradient.

    But for `error` and `gap/max`, every value is a *sum over its kind divided by the batch size*, so that
    parts of a batch add up; divided by `share/chosen` or `share/rejected` it is the mean over the kind.

    Args:
        policy: errors [B].
        desirable: bool [B].
        reference: errors [B]; without it there are no gaps.
        beta: of the implicit rewards; without it there are none.
    """
    policy = policy.detach()
    logs = {"error": policy.mean()}
    if reference is not None:
        logs["gap/max"] = (policy - reference).abs().max()
    for kind, mask in (("chosen", desirable), ("rejected", ~desirable)):
        logs[f"share/{kind}"] = mask.float().mean()
        logs[f"error/{kind}"] = (policy * mask).mean()
        if reference is not None:
            logs[f"gap/{kind}"] = ((policy - reference) * mask).mean()
            if beta is not None:
                logs[f"rewards/{kind}"] = (implicit_rewards(policy, reference, beta) * mask).mean()
    return logs


# What the curve calls these in the end (`models.training.loss.finish`), named as TRL names them.
LOGIT_LOGS: Final = {
    "logit/rms": "size of the logit",
    "logit/max": "the largest |logit|; 0 before the first step",
    "saturated": "share with |logit| above log 99: 1% of the pull is left",
    "dead": "share with |logit| below 0.02",
}
CLIP_LOGS: Final = {
    "error": "e of the batch's clips",
    "error/chosen": "e of the accepted clips",
    "error/rejected": "and of the rejected ones",
}
GAP_LOGS: Final = {
    "gap/chosen": "e - e_ref of the accepted clips",
    "gap/rejected": "and of the rejected ones",
    "gap/max": "the largest |e - e_ref|; 0 before the first step",
}
REWARD_LOGS: Final = {
    "rewards/chosen": "mean implicit reward of the accepted clips",
    "rewards/rejected": "and of the rejected ones",
    "rewards/margins": "their difference",
}
