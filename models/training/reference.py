"""The one forward pass, and the reference's errors as stored numbers: one a (clip, draw), used at every step.

Numbers of training, stored errors and probes are compared (a gap is a difference of two errors of order
1e-4), so they must come from the same operations in the same precision: `predict`.

The reference does not change while the policy learns, and with fixed draws neither does its input. So its
error is a property of (reference, clip, sigma, noise) and of nothing else: no pair, no objective and no beta
is in it, and all of them share one table.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from models import lora
from models.adapted_linear import fused
from models.compile import compile_blocks, fastest_attention
from models.families.base import Family
from models.training import noise as draws
from models.training.equations import error
from models.training.settings import TrainSettings
from models.training.train_data import Clips

# Standard deviations of a rounding error, see `rounding`: more of it is met once in ten thousand.
_DEVIATIONS: Final = 4


class ErrorTable:
    """The reference's errors at the fixed draws: in place of its forward pass during training.

    Args:
        clip_ids: rows of the training data.
        errors: float32 [K] of each clip, in the order of its draws; more clips than needed do no harm.

    Attributes:
        table: float32 [N, K].

    Raises:
        KeyError: a clip has no errors.
    """

    def __init__(self, clip_ids: tuple[str, ...], errors: Mapping[str, Tensor]) -> None:
        self.table = torch.stack([errors[clip] for clip in clip_ids])

    def __call__(self, clips: Tensor, fixed_draws: Tensor) -> Tensor:
        """float32 [b] errors of rows `clips` [b] of the training data at their fixed draws [b]."""
        return self.table[clips.cpu(), fixed_draws.cpu()]


def predict(family: Family, network: nn.Module, noisy: Tensor, sigma: Tensor, embeds: Tensor) -> Tensor:
    """The network's prediction in float32, [b, C, T, H, W], at noise levels sigma [b].

    The network computes in bfloat16 on a GPU, in float32 on a CPU, where bfloat16 is slower.
    """
    with torch.autocast("cuda", torch.bfloat16, enabled=noisy.device.type == "cuda"):
        return family.predict(network, noisy, sigma, embeds).float()


def evenly(rows: Tensor, most: int) -> Tensor:
    """At most so many of `rows`, evenly spread over them."""
    places = np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(np.int64)
    return rows[torch.from_numpy(places)]


def reference_network(transformer: nn.Module, start: bytes | None, base_id: str) -> nn.Module:
    """The network a run refers to: with the adapter it starts from, or the base as it is.

    Args:
        transformer: the base network without an adapter; it keeps the one it gets.
        start: adapter bytes of the policy that training starts from; None for the base.
    """
    transformer.requires_grad_(False).eval()
    if start is None:
        return transformer
    lora.resume(transformer, start, base_id, keep_reference=True)
    network: nn.Module = lora.reference_of(transformer)
    return network


def measure(
    network: nn.Module,
    family: Family,
    clips: Clips,
    settings: TrainSettings,
    rows: int,
    wanted: Tensor | None = None,
) -> Tensor:
    """The errors of `network` at every fixed draw of every clip, float32 [N, K] on the CPU.

    Args:
        network: see `reference_network`.
        settings: `fixed_noise_samples` above 0; of the rest only what decides the draws, and how the network
            is run (`compile`, `attention`): as in training, so that the errors round alike.
        rows: of one forward pass; the last is filled up. A clip's errors depend on it, and on what else is in
            the pass, up to rounding (see `rounding`): kernels choose the order of sums by shape and place.
        wanted: int64 [N], which of the clips; None: all.
    """
    device = next(network.parameters()).device
    chosen = torch.arange(len(clips.clip_ids)) if wanted is None else wanted
    count = settings.fixed_noise_samples
    places, numbers = chosen.repeat_interleave(count), torch.arange(count).repeat(len(chosen))
    # Kept where it is computed, so that the CPU draws the next noise while a GPU is at work.
    found = torch.empty(len(places), device=device)
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        if settings.attention == "fastest":
            stack.enter_context(fastest_attention(device))
        stack.enter_context(fused(lora.layers_of(network)))
        if settings.compile:
            compile_blocks(network)
        for first in range(0, len(places), rows):
            at = torch.arange(first, first + rows).clamp(max=len(places) - 1)
            errors = errors_at(network, family, clips, settings, places[at], numbers[at])
            found[first : first + rows] = errors[: len(places) - first]
    return found.view(-1, count).cpu()


def errors_at(
    network: nn.Module,
    family: Family,
    clips: Clips,
    settings: TrainSettings,
    places: Tensor,
    fixed_draws: Tensor,
) -> Tensor:
    """Errors of one pass over rows `places` [b] of `clips` at their fixed draws [b]: float32 [b].

    The operations of training's own pass, in its order: where the pass holds the same rows, to the last bit.
    """
    device = next(network.parameters()).device
    kind = family.parameterization
    index = clips.prompt_index[places]
    keys = [(clips.prompt_ids[p], d) for p, d in zip(index.tolist(), fixed_draws.tolist(), strict=True)]
    shape = clips.latents.shape[1:]
    sigma = torch.tensor([draws.fixed_sigma(settings, *key) for key in keys]).to(device)
    noise = torch.stack([draws.fixed_noise(settings, *key, shape) for key in keys]).to(device)
    x0, embeds = clips.latents[places].to(device), clips.embeds[index].to(device)
    prediction = predict(family, network, kind.noisy(x0, noise, sigma), sigma, embeds)
    return error(prediction, kind.target(x0, noise, sigma))


def rounding(network: nn.Module, numbers: int) -> float:
    """How far two float32 errors of one clip may lie apart where their passes sum in another order.

    A sum of n terms is off by n eps/2 of their magnitudes at most, and by the order of sqrt(n) eps/2 where
    roundings are independent (Higham and Mary 2019, SIAM Journal on Scientific Computing 41(5)). n is counted
    along the whole way to an error: the inputs of one unit of every layer, then the mean.

    Args:
        network: in float32.
        numbers: of a clip's latent, over which an error is the mean.

    Returns:
        A share of the error.
    """
    terms = numbers + sum(weight[0].numel() for weight in network.parameters() if weight.dim() > 1)
    return float(_DEVIATIONS * terms**0.5 * torch.finfo(torch.float32).eps)
