"""Weights held in fewer bits, where diffusers has a way to do it. It changes what a model computes.

    fp8-storage   linear and convolution layers lie in memory as float8 (e4m3) and are brought to the model's
                  dtype, layer by layer, while they compute: diffusers' layerwise casting, no other package.
                  Norms, embeddings of patches, and what diffusers keeps in float32 stay as they are.

Half of bfloat16's memory for somewhat more time. An adapter stays in float32 beside such weights and is never
merged into them: three bits of mantissa would round it away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch
    from torch import nn

Quantise = Literal["none", "fp8-storage"]


def quantise(network: nn.Module, how: Quantise, dtype: torch.dtype) -> None:
    """Hold the weights of `network`, a diffusers model without an adapter, as `how` says, in place.

    Args:
        dtype: that its layers compute in.
    """
    if how == "none":
        return
    import torch

    model: Any = network
    model.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=dtype)
