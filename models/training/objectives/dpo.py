"""dpo: Diffusion-DPO (arXiv 2311.12908), the reverse-BT projection of arXiv 2412.02617."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.training.equations import GAP_LOGS, LOGIT_LOGS, REWARD_LOGS, implicit_rewards, logit_logs
from models.training.objectives.base import PAIRS, Compared, Logs, LossSettings, Objective, positive_beta

if TYPE_CHECKING:
    from torch import Tensor


def dpo_loss(policy: Tensor, reference: Tensor, beta: float) -> Tensor:
    """L = mean over pairs of -logsigmoid(-beta/2 [(e_w - e_w_ref) - (e_l - e_l_ref)]).

    With the constant beta that VideoAlign (arXiv 2501.13918) found better than beta (1 - sigma)^2 for flow
    matching. The log-sigmoid is taken pair by pair, then averaged.

    Args:
        policy, reference: errors [pairs, 2], column 0 chosen, column 1 rejected.
        beta: above 0.
    """
    import torch.nn.functional as F

    return -F.logsigmoid(margins(policy, reference, beta)).mean()


def margins(policy: Tensor, reference: Tensor, beta: float) -> Tensor:
    """Implicit reward of the chosen clip minus that of the rejected one, [pairs]: the logit of DPO."""
    chosen, rejected = implicit_rewards(policy, reference, beta).unbind(1)
    return chosen - rejected


def pair_logs(policy: Tensor, reference: Tensor, beta: float) -> Logs:
    """Health of a batch of pairs, see `PAIR_LOGS`, from errors [pairs, 2]; every value is a scalar."""
    policy, reference = policy.detach(), reference.detach()
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
        "gap/max": gap.abs().max(),
        "displaced": (gap[:, 0] > 0).float().mean(),
        **logit_logs(margin),
    }


PAIR_LOGS = {
    **REWARD_LOGS,
    "rewards/accuracies": "share of pairs with a positive margin; a tie is not accurate",
    "error/chosen": "e of the chosen clips",
    "error/rejected": "and of the rejected ones",
    **GAP_LOGS,
    "displaced": "share of pairs whose chosen clip became less likely: the sign of likelihood displacement",
    **LOGIT_LOGS,
}


def _loss(seen: Compared, settings: LossSettings) -> tuple[Tensor, Logs]:
    errors, reference = seen.errors, seen.reference_errors
    return dpo_loss(errors, reference, settings.beta), pair_logs(errors, reference, settings.beta)


OBJECTIVE = Objective(
    name="dpo",
    title="Preference of the chosen over the rejected clip of each pair.",
    data=PAIRS,
    reference="error",
    curation_weight="uniform",
    loss=_loss,
    logs=PAIR_LOGS,
    check=positive_beta,
)
