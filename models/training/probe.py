"""What training did, measured where it cannot flatter itself: fixed clips, fixed noise levels, fixed noise.

The curve's errors come from whatever the batches drew; these do not. For the clips that were taught, those
that were to be avoided and those that were left out, the error of reference and policy and the distance
between their predictions, at five noise levels. The noise is of seeds that training never draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

from models.families.base import Family
from models.training import noise as draws
from models.training.equations import error
from models.training.reference import evenly, predict
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
            found[name] = evenly(own, settings.probe)
    return found


def read_by(data: TrainData, settings: TrainSettings) -> Tensor:
    """Rows of the clips that a run with these settings reads: those of its units, and those it probes."""
    rows: Tensor = torch.cat([settings.algorithm.units(data).flatten(), *kinds(data, settings).values()])
    return rows


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
    networks = (reference, policy)
    for name, clips in kinds(data, settings).items():
        found["clips"][name] = len(clips)
        for level in sigmas:
            parts = [_errors(networks, family, data, settings, part, level) for part in clips.split(rows)]
            means = torch.cat(parts).double().mean(0).tolist()
            for what, value in zip(("reference", "policy", "drift"), means, strict=True):
                found[what].setdefault(name, []).append(value)
    return found


def _errors(
    networks: Sequence[nn.Module],
    family: Family,
    data: TrainData,
    settings: TrainSettings,
    clips: Tensor,
    level: float,
) -> Tensor:
    """[b, 3]: errors of reference and policy on rows `clips` [b] at one noise level, and their distance."""
    device, kind, shape = next(networks[0].parameters()).device, family.parameterization, data.latents.shape
    seeds = [draws.seed_of(settings.seed, "probe", data.clip_ids[row], str(level)) for row in clips.tolist()]
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    noise = torch.stack([torch.randn(shape[1:], generator=one) for one in generators]).to(device)
    x0, embeds = data.latents[clips].to(device), data.embeds[data.prompt_index[clips]].to(device)
    sigma = torch.full((len(clips),), level, device=device)
    noisy, target = kind.noisy(x0, noise, sigma), kind.target(x0, noise, sigma)
    with torch.no_grad():
        before, after = (predict(family, network, noisy, sigma, embeds) for network in networks)
    return torch.stack([error(before, target), error(after, target), error(after, before)], dim=1)
