"""Which of PyTorch's attention kernels a GPU runs fastest, found by trying them.

`scaled_dot_product_attention` has several kernels of equal precision, and which is fastest differs by card
and by release: on Hopper cuDNN's is well ahead of FlashAttention 2, on others it may be missing. At 14,000
tokens attention is most of a training step, so it is worth the fraction of a second.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Final

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

log = logging.getLogger(__name__)

_TRIED: Final = (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION)
_LAST: Final = (SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH)
# [batch, heads, tokens, width of a head] of the trial: long enough that time to start does not count.
_SHAPE: Final = (1, 12, 8192, 128)
_REPEATS: Final = 3


@contextmanager
def fastest_attention(device: torch.device) -> Iterator[None]:
    """Within: attention on `device` takes the fastest kernel that takes its input. On a CPU nothing changes.

    The choice is the process's, not the thread's. Enter it before a network is compiled and leave it after
    the last backward pass.
    """
    if device.type != "cuda":
        yield
        return
    with sdpa_kernel(list(ranking(torch.cuda.get_device_name(device), device)), set_priority=True):
        yield


@cache
def ranking(card: str, device: torch.device) -> tuple[SDPBackend, ...]:
    """Kernels in the order in which `device`, a `card`, should try them."""
    seconds = {kind: _seconds(kind, device) for kind in _TRIED}
    told = ", ".join(f"{kind.name} {1000 * value:.2f} ms" for kind, value in seconds.items())
    log.info("attention on %s, forward and backward: %s", card, told)
    return (*sorted(_TRIED, key=lambda kind: seconds[kind]), *_LAST)


def _seconds(kind: SDPBackend, device: torch.device) -> float:
    """Of one forward and backward pass in bfloat16; infinite if this kernel does not run here."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    try:
        once = trial(kind, device, _SHAPE)
        once()  # loads the kernel, and lets cuDNN choose how to run it
        start.record()
        for _ in range(_REPEATS):
            once()
        end.record()
        torch.cuda.synchronize(device)
    except RuntimeError as refused:  # what torch raises where no allowed kernel takes the input
        log.info("attention kernel %s does not run here: %s", kind.name, refused)
        return float("inf")
    return float(start.elapsed_time(end)) / 1000 / _REPEATS


def trial(kind: SDPBackend, device: torch.device, shape: tuple[int, int, int, int]) -> Callable[[], None]:
    """A function that runs bfloat16 attention of [batch, heads, tokens, width] forward and backward.

    It does so whatever its caller has switched off: the first who asks for a ranking may be a pass without
    gradients, and the answer serves training too.

    Raises:
        RuntimeError: by the function, where the kernel does not take this input on this device.
    """
    generator = torch.Generator(device).manual_seed(0)
    query, key, value = (
        torch.randn(shape, generator=generator, device=device, dtype=torch.bfloat16).requires_grad_()
        for _ in range(3)
    )

    def once() -> None:
        with torch.enable_grad(), sdpa_kernel(kind):
            out = F.scaled_dot_product_attention(query, key, value)
            torch.autograd.grad(out, (query, key, value), out.detach())

    return once
