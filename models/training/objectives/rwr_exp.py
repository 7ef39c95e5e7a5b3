"""rwr-exp: reward-weighted regression with the exact weight of the KL-regularised optimum."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.training.equations import prompt_means
from models.training.objectives.base import WEIGHTED, Objective
from models.training.objectives.rwr import WEIGHTED_LOGS, curated, weighted

if TYPE_CHECKING:
    from torch import Tensor


def exp_weights(rewards: Tensor, prompts: Tensor, beta: float) -> Tensor:
    """W = exp(r / beta) / Z(c), with Z(c) = mean of exp(r / beta) over the clips of prompt c.

    The exact weight of the KL-regularised optimum p* = p_ref exp(r / beta) / Z (arXiv 2103.17258). Within a
    prompt the weights average 1; a prompt whose clips all have one reward gets weight 1 throughout.

    Args:
        rewards: [N] shaped rewards.
        prompts: [N] int, which prompt each clip belongs to.
        beta: temperature, above 0; small values let the best clips dominate (see `effective_sample_size`).
    """
    import torch

    if not beta > 0:
        raise ValueError(f"beta is {beta}, it must be above 0")
    scaled = rewards.double() / beta
    # Z is unchanged by a shift within the prompt; the shift keeps exp from overflowing at small beta.
    names, group = prompts.unique(return_inverse=True)
    peak = scaled.new_full((len(names),), -torch.inf).scatter_reduce(0, group, scaled, "amax")
    raised = (scaled - peak[group]).exp()
    return (raised / prompt_means(raised, prompts)[0]).to(rewards.dtype)


OBJECTIVE = Objective(
    name="rwr-exp",
    title="Regression weighted by exp(r' / curate.beta) / Z of the prompt.",
    data=WEIGHTED,
    reference="none",
    curation_weight="exp",
    loss=weighted,
    logs=WEIGHTED_LOGS,
    weights=curated,
)
