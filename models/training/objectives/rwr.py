"""rwr: reward-weighted regression, the forward-EM projection of arXiv 2412.02617."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.training.equations import CLIP_LOGS, clip_logs
from models.training.objectives.base import WEIGHTED, Compared, Logs, LossSettings, Objective

if TYPE_CHECKING:
    from torch import Tensor

    from models.training.train_data import TrainData


def rwr_loss(errors: Tensor, weights: Tensor) -> Tensor:
    """L = mean(W e).

    Args:
        errors: [B].
        weights: [B], W = r (the paper's simplification, see `identity_weights`) or W = exp(r / beta) /
            Z(prompt) (`rwr_exp.exp_weights`). Not divided by their sum: the scale of W is part of the
            objective.
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


def weighted(seen: Compared, _: LossSettings) -> tuple[Tensor, Logs]:
    """The loss and its logs, whatever W is."""
    loss = rwr_loss(seen.errors, seen.weights)
    return loss, {"weights/mean": seen.weights.mean(), **clip_logs(seen.errors, seen.desirable)}


def curated(data: TrainData, rows: Tensor, _: LossSettings) -> Tensor:
    """W as the curation made it, so that it can be queried before anything is trained."""
    return data.weights[rows]


WEIGHTED_LOGS = {"weights/mean": "of the batch's W", **CLIP_LOGS}

OBJECTIVE = Objective(
    name="rwr",
    title="Regression weighted by the shaped reward.",
    data=WEIGHTED,
    reference="none",
    curation_weight="reward",
    loss=weighted,
    logs=WEIGHTED_LOGS,
    weights=curated,
)
