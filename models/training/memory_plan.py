"""How much the blocks of a network may keep, found by measuring one training pass on the GPU itself.

First all blocks but the last keep only their attention; that pass says what a block takes in either mode and
where the peak lies. Then as many blocks as the budget has room for keep everything, the last ones, since the
backward pass frees theirs before it starts to compute the others again. A second pass checks the prediction.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Final

import torch

from models.training.blocks import BlockRunner

log = logging.getLogger(__name__)

# Of the free memory: the rest is for fragments between tensors of different sizes.
_USABLE: Final = 0.93
_CORRECTIONS: Final = 3


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


def choose(runner: BlockRunner, once: Callable[[], object], device: torch.device, most: int) -> MemoryPlan:
    """Set `runner` to keep as much as fits below `most` bytes.

    Args:
        once: one forward and backward pass of a micro-batch, with no trace left.

    Raises:
        torch.OutOfMemoryError: not even the trial pass fits; `runner` is left at keeping nothing.
    """
    runner.keep(1)
    try:
        once()  # compiles, and lets libraries take their workspaces
        runner.watched = True
        peak = _peak(once, device)
    except torch.OutOfMemoryError:
        runner.keep(0, attention=False)
        raise
    finally:
        runner.watched = False
    room = max(1, runner.taken[-1] - int(median(runner.taken[:-1])))
    kept, attention = 0, peak <= most
    if attention:
        kept = min(runner.count, 1 + (most - peak) // room)
        for _ in range(_CORRECTIONS):
            runner.keep(kept)
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
        runner.keep(kept)
    else:
        runner.keep(0, attention=False)
        once()
        peak = _peak(once, device)
    log.info(
        "%d of %d blocks keep everything, the others %s: peak %.1f GB of %.1f GB allowed",
        kept, runner.count, "attention" if attention else "nothing", peak / 1e9, most / 1e9,
    )  # fmt: skip
    if peak > most:
        log.warning("training takes %.1f GB, more than it may: less does not go", peak / 1e9)
    return MemoryPlan(kept, attention, peak, most)


def _peak(once: Callable[[], object], device: torch.device) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    once()
    torch.cuda.synchronize(device)
    return int(torch.cuda.max_memory_allocated(device))
