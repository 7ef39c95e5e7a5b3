"""What training did, measured where it cannot flatter itself: fixed clips, fixed noise levels, fixed noise.

The curve's errors come from whatever the batches drew; these do not. For the clips that were taught, those
that were to be avoided and those that were left out, the error of reference and policy and the distance
between their predictions, at five noise levels. The noise is of seeds that training never draws.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from models.families.base import Family
from models.training import noise as draws
from models.training.equations import error
from models.training.forward import predict
from models.training.settings import TrainSettings
from models.training.train_data import TrainData

# Of the range that is trained.
SIGMAS: Final = (0.1, 0.3, 0.5, 0.7, 0.9)
TAUGHT: Final = "taught"
AVOIDED: Final = "avoided"
HELD_OUT: Final = "held out"


def kinds(data: TrainData, settings: TrainSettings) -> dict[str, Tensor]:
    """Rows of the clips of each kind that there is, at most `settings.probe` of each, evenly spread.

    taught: chosen clips of pairs, accepted clips, or all of an objective that knows no difference; avoided:
    rejected ones; held out: scored clips that are in no unit.
    """
    if settings.algorithm.pairwise:
        taught, avoided = data.pairs[:, 0], data.pairs[:, 1]
    else:
        rows = settings.algorithm.rows(data)
        named = (
            data.accepted[rows] if settings.algorithm.data.both else torch.ones(len(rows), dtype=torch.bool)
        )
        taught, avoided = data.examples[rows[named]], data.examples[rows[~named]]
    used = torch.cat([taught, avoided])
    left = data.examples[~torch.isin(data.examples, used)]
    # A clip may be chosen in one pair and rejected in another where feedback is graded: it is then neither.
    both = taught[torch.isin(taught, avoided)]
    found = {}
    for name, clips in ((TAUGHT, taught), (AVOIDED, avoided), (HELD_OUT, left)):
        own = clips[~torch.isin(clips, both)].unique()
        if len(own):
            places = np.linspace(0, len(own) - 1, min(settings.probe, len(own))).round().astype(np.int64)
            found[name] = own[torch.from_numpy(np.unique(places))]
    return found


def probe(
    policy: nn.Module,
    reference: nn.Module,
    family: Family,
    data: TrainData,
    settings: TrainSettings,
    rows: int,
) -> dict[str, Any]:
    """Errors and distance by kind of clip and noise level, as plain JSON values.

    Args:
        policy, reference: networks on one device.
        rows: of one forward pass.

    Returns:
        `sigmas`, `clips` (how many of each kind), and for each kind a list with a number for each sigma:
        `reference` and `policy` (mean error), `drift` (mean squared distance of their predictions).
    """
    low, high = settings.sigma_range
    sigmas = [low + (high - low) * share for share in SIGMAS]
    found: dict[str, Any] = {
        "sigmas": sigmas, "clips": {}, "reference": {}, "policy": {}, "drift": {},
    }  # fmt: skip
    device = next(policy.parameters()).device
    kind = family.parameterization
    shape = data.latents.shape[1:]
    for name, clips in kinds(data, settings).items():
        found["clips"][name] = len(clips)
        index = data.prompt_index[clips]
        for level in sigmas:
            noise = torch.stack(
                [_noise(settings, data.clip_ids[row], level, shape) for row in clips.tolist()]
            )
            parts = []
            for place in torch.arange(len(clips)).split(rows):
                x0, n = data.latents[clips[place]].to(device), noise[place].to(device)
                embeds = data.embeds[index[place]].to(device)
                sigma = torch.full((len(place),), level, device=device)
                noisy, target = kind.noisy(x0, n, sigma), kind.target(x0, n, sigma)
                with torch.no_grad():
                    before = predict(family, reference, noisy, sigma, embeds)
                    after = predict(family, policy, noisy, sigma, embeds)
                pairs = ((before, target), (after, target), (after, before))
                parts.append(torch.stack([error(*pair) for pair in pairs], dim=1))
            means = torch.cat(parts).double().mean(0).tolist()
            for what, value in zip(("reference", "policy", "drift"), means, strict=True):
                found[what].setdefault(name, []).append(value)
    return found


def _noise(settings: TrainSettings, clip: str, sigma: float, shape: torch.Size) -> Tensor:
    seed = draws.seed_of(settings.seed, "probe", clip, str(sigma))
    return torch.randn(tuple(shape), generator=torch.Generator("cpu").manual_seed(seed))
