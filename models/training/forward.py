"""The one forward pass: what training, stored reference errors and probes all compute with.

Numbers are compared across these (a gap is a difference of two errors of order 1e-4), so they must come from
the same operations in the same precision.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from models.families.base import Family


def predict(family: Family, network: nn.Module, noisy: Tensor, sigma: Tensor, embeds: Tensor) -> Tensor:
    """The network's prediction in float32, [b, C, T, H, W].

    Args:
        noisy: [b, C, T, H, W] at noise levels sigma [b]; embeds: [b, L, D].
    """
    with _precision(noisy.device):
        return family.predict(network, noisy, sigma, embeds).float()


def _precision(device: torch.device) -> AbstractContextManager[Any]:
    """bfloat16 for the network on a GPU, float32 on a CPU, where bfloat16 is slower."""
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()
