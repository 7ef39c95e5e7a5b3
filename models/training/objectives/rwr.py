"""rwr: reward-weighted regression, the forward-EM projection of arXiv 2412.02617."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.training.equations import CLIP_LOGS, clip_logs
from models.training.objectives.base import WEIGHTED, Compared, Logs, LossSettings, Objective

if TYPE_CHECKING:
    from torch import Tensor


def rwr_loss(errors: Tensor, weights: Tensor) -> Tensor:
    """L = mean(W e).

    Args:
        errors: [B].
        weights: [B], W = r, the shaped reward: clips with r = 0 drop out, none is pushed away (the paper's
            simplification), or that of `rwr_exp`. Not divided by their sum: the scale of W is part of the
            objective.
    """
    return (weights * errors).mean()


def _loss(seen: Compared, _: LossSettings) -> tuple[Tensor, Logs]:
    loss = rwr_loss(seen.errors, seen.weights)
    return loss, {"weights/mean": seen.weights.mean(), **clip_logs(seen.errors, seen.desirable)}


OBJECTIVE = Objective(
    name="rwr",
    title="Regression weighted by the shaped reward.",
    data=WEIGHTED,
    reference="none",
    curation_weight="reward",
    loss=_loss,
    logs={"weights/mean": "of the batch's W", **CLIP_LOGS},
    # W as the curation made it, so that it can be queried before anything is trained.
    weights=lambda data, rows, _: data.weights[rows],
)
