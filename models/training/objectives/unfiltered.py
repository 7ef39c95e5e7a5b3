"""unfiltered: the control, which shows what training on one's own samples does by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.training.equations import CLIP_LOGS, clip_logs
from models.training.objectives.base import ALL, Compared, Logs, LossSettings, Objective
from models.training.objectives.sft import sft_loss

if TYPE_CHECKING:
    from torch import Tensor


def _loss(seen: Compared, _: LossSettings) -> tuple[Tensor, Logs]:
    return sft_loss(seen.errors), clip_logs(seen.errors, seen.desirable)


OBJECTIVE = Objective(
    name="unfiltered",
    title="Finetuning on every scored clip: a control.",
    data=ALL,
    reference="none",
    curation_weight="uniform",
    loss=_loss,
    logs=CLIP_LOGS,
)
