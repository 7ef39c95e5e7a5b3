"""What beta? The size of the logit in units of what the reference already finds between clips.

The logit of dpo is beta/2 times a difference of errors, and how large such differences are depends on the
latent's size, the noise levels and the model: a beta is worth nothing without them. Before training the gap
to the reference is 0, so its own spread says nothing yet; but the reference's errors differ from clip to
clip, at the same noise level and noise, and that is the natural unit of "as different as two clips are".

    dpo:  s = rms over (pair, draw) of e_ref_w - e_ref_l
    kto:  s = rms over (clip, draw) of e_ref - mean over its prompt's clips
    beta = 2 target_logit_std / s

Errors are of whole clips, also where pairs are compared in segments of them.

So at target_logit_std 1 a policy that tells two clips apart by as much again as the reference's errors for
them differ has a logit of 1. Training changes errors by far less than that, so useful targets lie above 1;
what was reached is `logit/rms` in the curve, and beta scales it in proportion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from data.errors import ModelError
from models.families.base import Family
from models.training.equations import prompt_means
from models.training.reference import ErrorTable, evenly, measure
from models.training.settings import TrainSettings
from models.training.train_data import TrainData

# Without a table, so many clips or pairs at so many draws: a standard error of a few per cent.
_UNITS: Final = 64
_DRAWS: Final = 8
# Of them, so many clips of one prompt where there are prompts enough.
_GROUP: Final = 4


@dataclass(frozen=True, slots=True)
class Calibration:
    """How a beta was found.

    Attributes:
        beta: 2 target_logit_std / error_spread.
        target_spread: asked for.
        error_spread: s, in units of mean squared error.
        units: pairs (dpo) or clips (kto) it was measured on; draws: of each.
    """

    beta: float
    target_spread: float
    error_spread: float
    units: int
    draws: int


def calibrate(
    network: nn.Module,
    family: Family,
    data: TrainData,
    settings: TrainSettings,
    rows: int,
    table: ErrorTable | None = None,
) -> Calibration:
    """Find the beta that `settings.target_logit_std` asks for.

    Args:
        network: the reference.
        data: at least one usable unit.
        settings: of an objective that compares errors, with a target spread.
        rows: of one forward pass.
        table: stored errors at the fixed draws, in place of forward passes.

    Raises:
        ModelError: the reference's errors do not differ (one clip a prompt, or copies of it).
    """
    assert settings.target_logit_std is not None
    units, pairwise = settings.algorithm.units(data), settings.algorithm.pairwise
    if table is None and len(units) > _UNITS:
        units = evenly(units, _UNITS) if pairwise else _some_groups(units, data.prompt_index[units[:, 0]])
    wanted = units.unique()
    count = settings.fixed_noise_samples or _DRAWS
    if table is None:
        asked = settings.changed(fixed_noise_samples=count)
        errors = measure(network, family, data, asked, rows, wanted)
    else:
        errors = table.table[wanted]
    errors = errors.double()[torch.searchsorted(wanted, units)]
    if pairwise:
        apart = errors[:, 0] - errors[:, 1]
    else:
        means, number = prompt_means(errors[:, 0], data.prompt_index[units[:, 0]])
        # n / (n - 1) undoes what centring on the clips' own mean takes off the square.
        scale = (number / (number - 1)).sqrt()[:, None]
        apart = ((errors[:, 0] - means) * scale)[number > 1]
    spread = float(apart.square().mean().sqrt())
    if not spread > 0:
        raise ModelError(
            "finetune.target_logit_std cannot be met: the reference's errors are the same for all clips of a "
            "prompt. Give finetune.beta, or more clips a prompt"
        )
    beta = 2 * settings.target_logit_std / spread
    return Calibration(beta, settings.target_logit_std, spread, len(units), count)


def _some_groups(units: Tensor, prompts: Tensor) -> Tensor:
    """About `_UNITS` units of a clip, several of each prompt: one alone has no mean to differ from.

    Args:
        prompts: int [n], which prompt each belongs to, in any order.
    """
    groups = [own for prompt in prompts.unique() if len(own := (prompts == prompt).nonzero()[:, 0]) > 1]
    if not groups:
        return evenly(units, _UNITS)
    each = min(max(_GROUP, -(-_UNITS // len(groups))), max(map(len, groups)))
    chosen = evenly(torch.arange(len(groups)), _UNITS // each).tolist()
    return units[torch.cat([groups[place][:each] for place in chosen]).sort().values]
