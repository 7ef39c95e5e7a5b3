"""How the repeated blocks of a network run in training: compiled or not, and what each keeps.

A transformer's memory in training is what its blocks keep between forward and backward. Each block can

    everything   keep all of it: no work done twice, most memory
    attention    keep its input and the output of self-attention, and compute the rest again: at video lengths
                 attention is half of the forward pass and one tensor of its memory
    nothing      keep its input only (plain gradient checkpointing): least memory, all of it computed again

and blocks may differ. The results are the same up to rounding, in eager mode on a CPU to the last bit.

This goes through the seam that diffusers has for gradient checkpointing (`enable_gradient_checkpointing` with
a function of one's own), so it holds for every family. Compiled, the checkpoint lies inside the compiled
region: one graph a block and mode, which all blocks share, and no graph breaks (`fullgraph=True` makes one an
error).

Compiled, modes may differ by what inductor makes of their graphs: how the sums of a norm are split is chosen
for each kernel by timing it. On an H200 a pass without gradients gave the predictions of one with them bit
for bit in four processes with 4 blocks, but not in one with 3 (3.3e-3 apart); at 30, in one process of four,
and in the others logits up to 0.019 (beta 500) lay between them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from statistics import median
from typing import Any, Final, Literal, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from data.errors import ConfigError
from models.compile import compile_blocks, compiled, repeated_blocks

log = logging.getLogger(__name__)

Forward = Callable[..., Any]
Keep = Literal["everything", "attention", "nothing"]

# Of the free memory: the rest is for fragments between tensors of different sizes.
_USABLE: Final = 0.93
_CORRECTIONS: Final = 3
_ATTENTION: Final = tuple(
    getattr(torch.ops.aten, f"_scaled_dot_product_{kind}").default
    for kind in (
        "flash_attention",
        "cudnn_attention",
        "efficient_attention",
        "flash_attention_for_cpu",
        "fused_attention_overrideable",
    )
)


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What was chosen.

    Attributes:
        kept: blocks that keep everything; attention: of the others, whether they keep attention's output.
        peak_bytes: of the checked pass; budget_bytes: what it had to stay below.
    """

    kept: int
    attention: bool
    peak_bytes: int
    budget_bytes: int


class BlockRunner:
    """Runs the blocks of one network as asked, wherever gradients are on. At first they keep everything.

    Attributes:
        count: of the blocks.
    """

    def __init__(self, network: nn.Module, *, compile: bool = False, backend: str = "inductor") -> None:
        """Take over the blocks of `network`, a diffusers model, until `release`.

        Args:
            backend: of torch.compile.

        Raises:
            ConfigError: it has no repeated blocks, or does not support gradient checkpointing.
        """
        blocks = repeated_blocks(network)
        self.count = len(blocks)
        # Whether it is measured, and bytes of GPU memory that each block's forward pass left allocated.
        self._watched = False
        self._taken: list[int] = []
        self._keeps: list[Keep] = ["everything"] * self.count
        self._network = cast(Any, network)
        self._backend = backend if compile else None
        self._place = {id(block): place for place, block in enumerate(blocks)}
        try:
            self._network.enable_gradient_checkpointing(self._run)
        except ValueError as failure:
            raise ConfigError(f"{type(network).__name__} cannot recompute its blocks: {failure}") from failure
        if compile:
            compile_blocks(network, backend)

    def release(self) -> None:
        """Blocks run as diffusers runs them; what was compiled stays compiled."""
        self._network.disable_gradient_checkpointing()

    def keep(self, everything: int, *, attention: bool = True) -> None:
        """Have the last so many blocks keep everything, the others attention or nothing."""
        less: Keep = "attention" if attention else "nothing"
        self._keeps = [less] * (self.count - everything) + ["everything"] * everything

    def fit(self, once: Callable[[], object], device: torch.device, most: int) -> MemoryPlan:
        """Keep as much as fits below `most` bytes, found by measuring training passes on the GPU itself.

        First all blocks but the last keep only their attention; that pass says what a block takes in either
        mode and where the peak lies. Then as many blocks as the budget has room for keep everything, the last
        ones, since the backward pass frees theirs before it starts to compute the others again. Further
        passes check the prediction.

        Args:
            once: one forward and backward pass of a micro-batch, with no trace left.

        Raises:
            torch.OutOfMemoryError: not even the trial pass fits; nothing is kept from now on.
        """
        self.keep(1)
        try:
            once()  # compiles, and lets libraries take their workspaces
            self._watched = True
            peak = _peak(once, device)
        except torch.OutOfMemoryError:
            self.keep(0, attention=False)
            raise
        finally:
            self._watched = False
        room = max(1, self._taken[-1] - int(median(self._taken[:-1])))
        kept, attention = 0, peak <= most
        if attention:
            kept = min(self.count, 1 + (most - peak) // room)
            for _ in range(_CORRECTIONS):
                self.keep(kept)
                torch.cuda.empty_cache()
                try:
                    once()
                    peak = _peak(once, device)
                    over = -(-(peak - most) // room)
                except torch.OutOfMemoryError:
                    peak, over = most, 1 + kept // 8
                if over <= 0 or kept == 0:
                    break
                kept = max(0, kept - over)
            self.keep(kept)
        else:
            self.keep(0, attention=False)
            once()
            peak = _peak(once, device)
        log.info(
            "%d of %d blocks keep everything, the others %s: peak %.1f GB of %.1f GB allowed",
            kept, self.count, "attention" if attention else "nothing", peak / 1e9, most / 1e9,
        )  # fmt: skip
        if peak > most:
            log.warning("training takes %.1f GB, more than it may: less does not go", peak / 1e9)
        return MemoryPlan(kept, attention, peak, most)

    def _run(self, block: nn.Module, *args: Any) -> Any:
        place = self._place[id(block)]
        how, device = self._keeps[place], args[0].device
        run = _MODES[how] if self._backend is None else _compiled_mode(how, self._backend, device)
        if not self._watched:
            return run(type(block).forward, block, *args)
        before = torch.cuda.memory_allocated(device)
        out = run(type(block).forward, block, *args)
        if place == 0:
            self._taken = []
        self._taken.append(torch.cuda.memory_allocated(device) - before)
        return out


# Each gets the class's own `forward`: the block's may be the compiled one, of passes without gradients.
def _everything(forward: Forward, block: nn.Module, *args: Any) -> Any:
    return forward(block, *args)


def _nothing(forward: Forward, block: nn.Module, *args: Any, **how: Any) -> Any:
    # There is no dropout in a network that is in eval mode, so no state of a generator to put back.
    return checkpoint(partial(forward, block), *args, use_reentrant=False, preserve_rng_state=False, **how)


def _attention(forward: Forward, block: nn.Module, *args: Any) -> Any:
    return _nothing(forward, block, *args, context_fn=_keep_attention)


_MODES: Final[dict[Keep, Callable[..., Any]]] = {
    "everything": _everything,
    "attention": _attention,
    "nothing": _nothing,
}


@cache
def _compiled_mode(how: Keep, backend: str, device: torch.device) -> Callable[..., Any]:
    return compiled(_MODES[how], backend, device)


def _keep_attention() -> Any:
    return create_selective_checkpoint_contexts(_policy)


def _policy(_: Any, op: Any, *args: Any, **__: Any) -> CheckpointPolicy:
    """Keep self-attention: as long as its keys are. Attention to a text's few hundred tokens is cheap."""
    if op in _ATTENTION:
        query, key = args[0], args[1]
        if isinstance(query, Tensor) and query.shape[-2] == key.shape[-2]:
            return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE


def budget(device: torch.device, asked_gb: float | None, reserve: int) -> int:
    """Bytes that tensors on `device` may take at the peak.

    Args:
        asked_gb: the user's bound, in 1e9 bytes; None: what is free now.
        reserve: bytes that come later, such as the optimiser's state.
    """
    allocated = torch.cuda.memory_allocated(device)
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - allocated
    most = allocated + int(_USABLE * free)
    return (most if asked_gb is None else min(most, int(asked_gb * 1e9))) - reserve


def _peak(once: Callable[[], object], device: torch.device) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    once()
    torch.cuda.synchronize(device)
    return int(torch.cuda.max_memory_allocated(device))
