"""nft: DiffusionNFT (arXiv 2509.16117), towards the accepted and away from the rejected clips."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.training.equations import CLIP_LOGS, GAP_LOGS, clip_logs, error, prompt_means
from models.training.objectives.base import LABELS, Compared, Logs, LossSettings, Objective

if TYPE_CHECKING:
    from torch import Tensor

    from models.training.train_data import TrainData


def nft_loss(
    prediction: Tensor, reference: Tensor, target: Tensor, optimality: Tensor, beta: float
) -> Tensor:
    """L = mean of r |v+ - v|^2 + (1 - r) |v- - v|^2, v+ = (1-b) v_old + b v_th, v- = (1+b) v_old - b v_th.

    Equation 5 of arXiv 2509.16117, with |.|^2 the mean over axes as everywhere here. With
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


def optimality(rewards: Tensor, prompts: Tensor) -> Tensor:
    """r = 1/2 + 1/2 clip((reward - mean of the prompt) / Z, -1, 1), Z the standard deviation of all rewards.

    DiffusionNFT, section 3.3, "Optimality Reward". A prompt whose clips are all alike gets 1/2 throughout:
    its two branches cancel, and it teaches nothing but to stay.

    Args:
        rewards: [N].
        prompts: [N] int, which prompt each clip belongs to.
    """
    import torch

    values = rewards.double()
    scale = float(values.std(unbiased=False)) if len(values) else 0.0
    if scale == 0:
        return torch.full_like(rewards, 0.5)
    centred = values - prompt_means(values, prompts)[0]
    return (0.5 + 0.5 * (centred / scale).clamp(-1, 1)).to(rewards.dtype)


def _loss(seen: Compared, settings: LossSettings) -> tuple[Tensor, Logs]:
    reference = seen.reference_prediction
    loss = nft_loss(seen.prediction, reference, seen.target, seen.weights, settings.nft_beta)
    return loss, clip_logs(seen.errors, seen.desirable, error(reference, seen.target))


def _weights(data: TrainData, rows: Tensor, settings: LossSettings) -> Tensor:
    accepted = data.accepted[rows].float()
    if settings.optimality == "label":
        return accepted
    return optimality(accepted, data.prompt_index[data.examples[rows]])


OBJECTIVE = Objective(
    name="nft",
    title="Towards the accepted and away from the rejected clips, by prediction.",
    data=LABELS,
    reference="prediction",
    curation_weight="uniform",
    loss=_loss,
    logs={**CLIP_LOGS, **GAP_LOGS, "kl": "squared distance to the reference's prediction"},
    weights=_weights,
    counts=False,  # r says which branch a clip is in, not how much it counts
)
