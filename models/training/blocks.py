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

from collections.abc import Callable
from functools import cache, partial
from typing import Any, Final, Literal, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from data.errors import ConfigError
from models.compile import compile_blocks, compiled, repeated_blocks

Forward = Callable[..., Any]
Keep = Literal["everything", "attention", "nothing"]

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


class BlockRunner:
    """Runs the blocks of one network as asked, wherever gradients are on. At first they keep everything.

    Attributes:
        count: of the blocks.
        watched: whether `taken` is measured, on a GPU only: it costs time.
        taken: bytes of GPU memory that each block's forward pass left allocated, of the last watched pass.
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
        self.watched = False
        self.taken: list[int] = []
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

    def _run(self, block: nn.Module, *args: Any) -> Any:
        place = self._place[id(block)]
        how, device = self._keeps[place], args[0].device
        run = _MODES[how] if self._backend is None else _compiled_mode(how, self._backend, device)
        if not self.watched:
            return run(type(block).forward, block, *args)
        before = torch.cuda.memory_allocated(device)
        out = run(type(block).forward, block, *args)
        if place == 0:
            self.taken = []
        self.taken.append(torch.cuda.memory_allocated(device) - before)
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
