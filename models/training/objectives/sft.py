"""sft: filtered finetuning, the limit of rwr at beta -> 0."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.training.objectives.base import ACCEPTED, Compared, Logs, LossSettings, Objective

if TYPE_CHECKING:
    from torch import Tensor


def sft_loss(errors: Tensor) -> Tensor:
    """L = mean(e), over accepted clips.

    Args:
        errors: [B].
    """
    return errors.mean()


def _loss(seen: Compared, _: LossSettings) -> tuple[Tensor, Logs]:
    return sft_loss(seen.errors), {"error": seen.errors.detach().mean()}


OBJECTIVE = Objective(
    name="sft",
    title="Finetuning on the accepted clips.",
    data=ACCEPTED,
    reference="none",
    curation_weight="uniform",
    loss=_loss,
    logs={"error": "of the batch's clips"},
)
