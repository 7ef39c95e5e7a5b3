"""sdpo: Diffusion-SDPO (arXiv 2511.03317), `dpo` whose rejected clips never push the chosen ones away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.training.objectives.base import PAIRS, Compared, Logs, LossSettings, Objective, positive_beta
from models.training.objectives.dpo import PAIR_LOGS, dpo_loss, pair_logs

if TYPE_CHECKING:
    from torch import Tensor


def safeguard(chosen: Tensor, rejected: Tensor, mu: float) -> Tensor:
    """lambda = clip((1 - mu) |g_w|^2 / <g_w, g_l>, 0, 1) where <g_w, g_l> > 0, and 1 elsewhere: [pairs].

    A step along -g_w + lambda g_l (`dpo`: lambda = 1) changes e_w by -|g_w|^2 + lambda <g_w, g_l> to first
    order: with this lambda by -mu |g_w|^2 or less, so that the chosen clip's error does not rise.

    Args:
        chosen, rejected: gradients g_w and g_l of e_w and e_l in the network's output, [pairs, ...].
        mu: how much of the chosen clip's own descent is kept, in [0, 1].
    """
    import torch

    chosen, rejected = chosen.flatten(1), rejected.flatten(1)
    agree = (chosen * rejected).sum(1)
    most = (1 - mu) * chosen.square().sum(1) / torch.where(agree > 0, agree, 1)
    return torch.where(agree > 0, most, 1).clamp(0, 1)


def held(errors: Tensor, scale: Tensor) -> Tensor:
    """Errors [pairs, 2] of the same values, the gradient of whose rejected clips is multiplied by `scale`."""
    import torch

    chosen, rejected = errors.unbind(1)
    still = rejected.detach()
    return torch.stack([chosen, still + scale * (rejected - still)], dim=1)


def _loss(seen: Compared, settings: LossSettings) -> tuple[Tensor, Logs]:
    import torch

    # By autograd, from the errors to the network's output and no further: so that it follows whatever frames
    # the errors are taken over, and costs no pass.
    (slopes,) = torch.autograd.grad(seen.errors.sum(), seen.prediction, retain_graph=True)
    chosen, rejected = slopes.chunk(2)
    scale = safeguard(chosen, rejected, settings.sdpo_mu)
    errors, reference = held(seen.errors, scale), seen.reference_errors
    logs = {"lambda": scale.mean(), "held_back": (scale < 1).float().mean()}
    return dpo_loss(errors, reference, settings.beta), pair_logs(errors, reference, settings.beta) | logs


OBJECTIVE = Objective(
    name="sdpo",
    title="Preference whose rejected clips are pushed away no further than the chosen ones allow.",
    data=PAIRS,
    reference="error",
    curation_weight="uniform",
    loss=_loss,
    logs={
        **PAIR_LOGS,
        "lambda": "what the rejected clip's gradient is multiplied with, on average",
        "held_back": "share of pairs in which it is below 1",
    },
    check=positive_beta,
)
