"""torch.compile of a network's repeated blocks, and the attention kernel that a GPU runs fastest.

Block by block ("regional compilation", diffusers' `compile_repeated_blocks`): the blocks are alike, so one is
compiled and all run it, in seconds where the whole network takes minutes. Two things differ from diffusers'
own method: all blocks share one compiled function, and it takes the place of `forward` itself, below any
hook, so that a step cache (`models.sampling.sampler`) and the compiled block work together without graph
breaks.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from data.errors import ConfigError
from data.networks import PYTORCHS

_CACHE_VARIABLE: Final = "TORCHINDUCTOR_CACHE_DIR"
# One entry a combination of batch shape, mode and gradient; torch's default of 8 is for whole models.
_RECOMPILE_LIMIT: Final = 64
# From this compute capability on (Hopper) cuDNN's attention is the fastest that PyTorch has, forward and
# backward. A rule and not a measurement: two runs, or a stored error and training, must take one kernel.
_CUDNN_FROM: Final = (9, 0)
_ORDER: Final = (
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
)


def rounding(backend: str, device: torch.device) -> dict[str, Any] | None:
    """Options of torch.compile that have fused kernels on a GPU round to bfloat16 wherever eager ones do.

    Inductor would leave those roundings out, and which ones depends on what it fuses: over thirty blocks two
    graphs of the same operations (with and without gradients, say) would differ by as much as bfloat16's own
    error. None elsewhere.
    """
    gpu = backend == "inductor" and device.type == "cuda"
    return {"emulate_precision_casts": True} if gpu else None


def compiled(function: Callable[..., Any], backend: str, device: torch.device) -> Callable[..., Any]:
    """`function` through torch.compile, as everything here is compiled.

    A graph break is an error and no silent slowness. Shapes are taken as they come: there are few, and
    kernels for one shape are faster. All graphs round alike, with gradients and without (`rounding`). The
    kernels are kept in `$TORCHINDUCTOR_CACHE_DIR`, else in the user's cache folder.
    """
    import torch._dynamo

    # So that a second start on the same machine finds the kernels; PyTorch's own default is lost with /tmp.
    os.environ.setdefault(_CACHE_VARIABLE, str(Path.home() / ".cache" / "vidloop" / "inductor"))
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _RECOMPILE_LIMIT)
    options = rounding(backend, device)
    made: Callable[..., Any] = torch.compile(
        function, fullgraph=True, dynamic=False, backend=backend, options=options
    )
    return made


def compile_blocks(network: nn.Module, backend: str = "inductor", device: torch.device | None = None) -> int:
    """Have the blocks of `network` compiled when they first run, once for each shape.

    Args:
        network: a diffusers model.
        backend: of torch.compile.
        device: where the blocks will run, if their weights are not there yet; None: where these are.

    Returns:
        The number of blocks.

    Raises:
        ConfigError: see `repeated_blocks`.
    """
    blocks = repeated_blocks(network)
    shared = compiled(type(blocks[0]).forward, backend, device or next(network.parameters()).device)
    for block in blocks:
        block.forward = functools.partial(shared, block)
    return len(blocks)


def repeated_blocks(network: nn.Module) -> list[nn.Module]:
    """The longest list of layers of one class in `network`: its transformer blocks.

    Raises:
        ConfigError: there is none.
    """
    found: list[nn.Module] = []
    for module in network.modules():
        if isinstance(module, nn.ModuleList) and len({type(part) for part in module}) == 1:
            found = max(found, list(module), key=len)
    if len(found) < 2:
        raise ConfigError(
            f"{type(network).__name__} has no repeated blocks: set model.compile to false, and "
            "finetune.compile and finetune.gradient_checkpointing too"
        )
    return found


def attention_kernel(capabilities: Sequence[str] | None) -> str:
    """Which attention `fastest_attention` leads to, in words.

    Args:
        capabilities: compute capability of each GPU, "9.0"; None: a CPU.
    """
    if capabilities is None:
        return "PyTorch's for CPUs"
    if capabilities and all(tuple(map(int, one.split("."))) >= _CUDNN_FROM for one in capabilities):
        return ", else ".join(one.name.lower().removesuffix("_attention") for one in _ORDER)
    return PYTORCHS


def attention_on(device: torch.device) -> str:
    """Which attention `fastest_attention` leads to on a device of this process, in words."""
    if device.type != "cuda":
        return attention_kernel(None)
    return attention_kernel([".".join(map(str, torch.cuda.get_device_capability(device)))])


@contextmanager
def fastest_attention(device: torch.device) -> Iterator[None]:
    """Within: attention on `device` takes the fastest kernel that takes its input; on a CPU nothing changes.

    The choice is the process's, not the thread's. Enter it before a network is compiled and leave it after
    the last backward pass.
    """
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < _CUDNN_FROM:
        yield
        return
    with sdpa_kernel(list(_ORDER), set_priority=True):
        yield
