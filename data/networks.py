"""How a network computes, in a line: what a speed, or a rounding, goes back to."""

from __future__ import annotations

from typing import Any, Final

from data.device import device_kind

PYTORCHS: Final = "as PyTorch chooses"
"""Of an attention kernel: what scaled_dot_product_attention takes by itself."""


def network_line(
    network: str,
    device: str,
    dtype: Any,
    attention: str = PYTORCHS,
    compiled: str = "not compiled",
    *more: str,
) -> str:
    """For example "UMT5EncoderModel on cpu in float32, attention: eager, not compiled".

    Args:
        network: its class, or a served model's name.
        device: where it computes.
        dtype: of its weights.
        attention: which kernel; "" for a network without.
        compiled: whether, and how much of it.
        more: what else there is to say: a step cache, whether it leaves the device.
    """
    where = f"{network} on {device_kind(str(device))} in {str(dtype).removeprefix('torch.')}"
    return ", ".join([where, *([f"attention: {attention}"] if attention else []), compiled, *more])


def transformers_line(model: Any, device: str = "", *more: str) -> str:
    """The line of a model of transformers, which says itself what attention it takes.

    Args:
        device: where it computes; "": where its weights are now.
    """
    attention = model.config._attn_implementation
    return network_line(
        type(model).__name__, device or str(model.device), model.dtype, attention, "not compiled", *more
    )
