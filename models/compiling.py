"""torch.compile of a network's repeated blocks, and the attention kernel that sampling prefers.

Block by block ("regional compilation", diffusers' `compile_repeated_blocks`): the blocks are alike, so one is
compiled and all run it, in seconds where the whole network takes minutes. Two things differ from diffusers'
own method: all blocks share one compiled function, and it takes the place of `forward` itself, below any
hook, so that a step cache (`models.sampling.step_cache`) and the compiled block work together without graph
breaks.
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from data.errors import ConfigError

_CACHE_VARIABLE: Final = "TORCHINDUCTOR_CACHE_DIR"
# From this compute capability on (Hopper) cuDNN's attention is the fastest that PyTorch has.
_CUDNN_FROM: Final = (9, 0)


def keep_compiled() -> None:
    """Keep compiled kernels on disk, so that a second start on the same machine finds them.

    In `$TORCHINDUCTOR_CACHE_DIR`, else in the user's cache folder: PyTorch's own default is lost with /tmp.
    """
    os.environ.setdefault(_CACHE_VARIABLE, str(Path.home() / ".cache" / "vidloop" / "inductor"))


def rounding(backend: str, device: torch.device) -> dict[str, Any] | None:
    """Options of torch.compile that have fused kernels on a GPU round to bfloat16 wherever eager ones do.

    Inductor would leave those roundings out, and which ones depends on what it fuses: over thirty blocks two
    graphs of the same operations (with and without gradients, say) would differ by as much as bfloat16's own
    error. None elsewhere.
    """
    gpu = backend == "inductor" and device.type == "cuda"
    return {"emulate_precision_casts": True} if gpu else None


def compile_blocks(
    transformer: nn.Module, backend: str = "inductor", device: torch.device | None = None
) -> int:
    """Have the blocks of `transformer` compiled when they first run, once for each shape.

    A graph break is an error and no silent slowness. Fused kernels round as `rounding` says.

    Args:
        transformer: a diffusers network that names its repeated blocks.
        backend: of torch.compile.
        device: where the blocks will run, if their weights are not there yet; None: where these are.

    Returns:
        The number of blocks.

    Raises:
        ConfigError: the network names no repeated blocks.
    """
    keep_compiled()
    compiled: dict[type[nn.Module], Callable[..., Any]] = {}
    blocks = blocks_of(transformer)
    if not blocks:
        raise ConfigError(
            f"{type(transformer).__name__} names no repeated blocks: set model.compile to false"
        )
    device = device or next(transformer.parameters()).device
    for block in blocks:
        kind = type(block)
        if kind not in compiled:
            compiled[kind] = torch.compile(
                kind.forward,
                fullgraph=True,
                dynamic=False,
                backend=backend,
                options=rounding(backend, device),
            )
        block.forward = functools.partial(compiled[kind], block)
    return len(blocks)


def blocks_of(transformer: nn.Module) -> list[nn.Module]:
    """The blocks that a diffusers network repeats, by what it says of itself."""
    network: Any = transformer
    # CogVideoX names only what must not be split over devices: the block, and parts that it has once.
    names = tuple(network._repeated_blocks or network._no_split_modules or ())
    found = [module for module in transformer.modules() if type(module).__name__ in names]
    count = Counter(type(module) for module in found)
    return [module for module in found if count[type(module)] > 1]


@contextmanager
def preferred_attention(device: torch.device) -> Iterator[None]:
    """Within: cuDNN's attention first, on GPUs where it is the fastest and for inputs that it takes."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < _CUDNN_FROM:
        yield
        return
    from torch.nn.attention import SDPBackend, sdpa_kernel

    order = [
        SDPBackend.CUDNN_ATTENTION,
        SDPBackend.FLASH_ATTENTION,
        SDPBackend.EFFICIENT_ATTENTION,
        SDPBackend.MATH,
    ]
    with sdpa_kernel(order, set_priority=True):
        yield
