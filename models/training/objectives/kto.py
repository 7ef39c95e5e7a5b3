"""kto: Diffusion-KTO (arXiv 2404.04465), preference from labels of single clips."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.training.equations import (
    CLIP_LOGS,
    GAP_LOGS,
    LOGIT_LOGS,
    REWARD_LOGS,
    clip_logs,
    implicit_rewards,
    logit_logs,
)
from models.training.objectives.base import LABELS, Compared, Logs, LossSettings, Objective, positive_beta

if TYPE_CHECKING:
    from torch import Tensor

    from models.training.train_data import TrainData


def kto_loss(
    policy: Tensor, reference: Tensor, desirable: Tensor, weights: Tensor, beta: float, point: Tensor
) -> Tensor:
    """L = mean of lambda (1 - sigmoid(w (-beta/2 (e - e_ref) - z))), w = 1 for accepted and -1 for rejected.

    Equation 8 of arXiv 2404.04465 with the Kahneman-Tversky utility U = sigmoid (section 4.2) and lambda of
    KTO (equation 5 there). beta/2 as in `dpo`, so that one beta means one thing in both; the published code
    omits the half: its beta is half of ours.

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
    """w (-beta/2 (e - e_ref) - z), [B]: what `kto_loss` takes the sigmoid of."""
    sign = desirable.to(policy.dtype) * 2 - 1
    return sign * (implicit_rewards(policy, reference, beta) - point)


def reference_point(policy: Tensor, reference: Tensor, beta: float) -> Tensor:
    """z = max(0, mean of -beta/2 (e - e_ref)) over the batch, a scalar without gradient.

    Q_ref of Diffusion-KTO (section 4.1 below equation 8): the KL divergence of policy and reference, which is
    never negative. Its published code estimates it from the batch itself, as here.

    Args:
        policy, reference: errors [B].
        beta: above 0.
    """
    return implicit_rewards(policy, reference, beta).mean().clamp(min=0).detach()


def class_weights(desirable: Tensor, share: float) -> Tensor:
    """lambda: weights of mean 1 under which accepted clips make up `share` of the loss.

    Diffusion-KTO draws accepted clips with probability gamma (section 4.2); weighting them instead has the
    same expectation and keeps every clip in every epoch.

    Args:
        desirable: bool [N]; if all are alike, every weight is 1.
        share: gamma, in (0, 1).
    """
    import torch

    held = float(desirable.double().mean()) if len(desirable) else 0.0
    if held in (0.0, 1.0):
        return torch.ones(len(desirable))
    return torch.where(desirable, share / held, (1 - share) / (1 - held)).float()


def _loss(seen: Compared, settings: LossSettings) -> tuple[Tensor, Logs]:
    errors, reference, beta, point = seen.errors, seen.reference_errors, settings.beta, seen.batch_value
    fixed = errors.detach()
    logits = utility_logits(fixed, reference, seen.desirable, beta, point)
    return kto_loss(errors, reference, seen.desirable, seen.weights, beta, point), {
        **clip_logs(fixed, seen.desirable, reference, beta),
        **logit_logs(logits),
        "rewards/accuracies": (logits > 0).float().mean(),
        "reference_point": point,
    }


def _weights(data: TrainData, rows: Tensor, settings: LossSettings) -> Tensor:
    return class_weights(data.accepted[rows], settings.desirable_share)


OBJECTIVE = Objective(
    name="kto",
    title="Preference from accepted and rejected clips that need not be paired.",
    data=LABELS,
    reference="error",
    curation_weight="uniform",
    loss=_loss,
    logs={
        **CLIP_LOGS,
        **GAP_LOGS,
        **REWARD_LOGS,
        **LOGIT_LOGS,
        "rewards/accuracies": "share of clips on their side of z",
        "reference_point": "z",
    },
    weights=_weights,
    over_batch=lambda policy, reference, settings: reference_point(policy, reference, settings.beta),
    check=positive_beta,
)
