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

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from data.errors import ConfigError
from models.compiling import keep_compiled, rounding

Keep = Literal["everything", "attention", "nothing"]
KEEPS: Final[tuple[Keep, ...]] = get_args(Keep)

# One entry a combination of batch shape, mode and gradient; torch's default of 8 is for whole models.
_RECOMPILE_LIMIT: Final = 64

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
    """Runs the blocks of one network as asked, wherever gradients are on.

    Attributes:
        blocks: in the order of the network.
        keeps: what each is asked to keep; may be changed between passes.
        watched: whether `taken` is measured, on a GPU only: it costs time.
        taken: bytes of GPU memory that each block's forward pass left allocated, of the last watched pass.
    """

    def __init__(self, network: nn.Module, *, compiled: bool = False, backend: str = "inductor") -> None:
        """Take over the blocks of `network`, a diffusers model, until `release`.

        Args:
            backend: of torch.compile.

        Raises:
            ConfigError: it has no repeated blocks, or does not support gradient checkpointing.
        """
        self.blocks = repeated_blocks(network)
        self.keeps: list[Keep] = ["everything"] * len(self.blocks)
        self.watched = False
        self.taken: list[int] = []
        self._network = cast(Any, network)
        self._backend = backend if compiled else None
        self._place = {id(block): place for place, block in enumerate(self.blocks)}
        try:
            self._network.enable_gradient_checkpointing(self._run)
        except ValueError as failure:
            raise ConfigError(f"{type(network).__name__} cannot recompute its blocks: {failure}") from failure
        if compiled:
            compile_blocks(network, backend)

    def release(self) -> None:
        """Blocks run as diffusers runs them; what was compiled stays compiled."""
        self._network.disable_gradient_checkpointing()

    def keep(self, keeps: Sequence[Keep]) -> None:
        """Say what each block keeps, in order."""
        if len(keeps) != len(self.blocks):
            raise ValueError(f"{len(keeps)} choices for {len(self.blocks)} blocks")
        self.keeps = list(keeps)

    def _run(self, block: nn.Module, *args: Any) -> Any:
        place = self._place[id(block)]
        how = self.keeps[place]
        run = _MODES[how] if self._backend is None else _compiled_mode(how, self._backend, args[0].device)
        if not self.watched:
            return run(block, *args)
        device = args[0].device
        before = torch.cuda.memory_allocated(device)
        out = run(block, *args)
        if place == 0:
            self.taken = []
        self.taken.append(torch.cuda.memory_allocated(device) - before)
        return out


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
            f"{type(network).__name__} has no repeated blocks: set finetune.compile and "
            "finetune.gradient_checkpointing to false"
        )
    return found


def compile_blocks(network: nn.Module, backend: str = "inductor") -> None:
    """Compile every repeated block in place, as a whole: a graph break is an error, not a slower block.

    Shapes are taken as they come (`dynamic=False`): training has few, and kernels for one shape are faster.
    All graphs round alike, with gradients and without: a stored error of the reference, measured without, is
    compared with the policy's.

    Raises:
        ConfigError: see `repeated_blocks`.
    """
    import torch._dynamo

    keep_compiled()
    limit = torch._dynamo.config.recompile_limit
    torch._dynamo.config.recompile_limit = max(limit, _RECOMPILE_LIMIT)
    options = rounding(backend, next(network.parameters()).device)
    for block in repeated_blocks(network):
        block.compile(fullgraph=True, dynamic=False, backend=backend, options=options)


def _everything(block: nn.Module, *args: Any) -> Any:
    return block.forward(*args)


def _nothing(block: nn.Module, *args: Any) -> Any:
    # There is no dropout in a network that is in eval mode, so no state of a generator to put back.
    return checkpoint(block.forward, *args, use_reentrant=False, preserve_rng_state=False)


def _attention(block: nn.Module, *args: Any) -> Any:
    return checkpoint(
        block.forward, *args, use_reentrant=False, preserve_rng_state=False, context_fn=_keep_attention
    )


_MODES: Final[dict[Keep, Callable[..., Any]]] = {
    "everything": _everything,
    "attention": _attention,
    "nothing": _nothing,
}


@cache
def _compiled_mode(how: Keep, backend: str, device: torch.device) -> Callable[..., Any]:
    compiled: Callable[..., Any] = torch.compile(
        _MODES[how], fullgraph=True, dynamic=False, backend=backend, options=rounding(backend, device)
    )
    return compiled


def _keep_attention() -> Any:
    return create_selective_checkpoint_contexts(_policy)


def _policy(_: Any, op: Any, *args: Any, **__: Any) -> CheckpointPolicy:
    """Keep self-attention: as long as its keys are. Attention to a text's few hundred tokens is cheap."""
    if op in _ATTENTION:
        query, key = args[0], args[1]
        if isinstance(query, Tensor) and query.shape[-2] == key.shape[-2]:
            return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE
