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

from models.training.blocks import BlockRunner, Keep

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


def keeps_of(blocks: int, kept: int, *, attention: bool = True) -> list[Keep]:
    """The last `kept` blocks keep everything, the others attention or nothing."""
    less: Keep = "attention" if attention else "nothing"
    return [less] * (blocks - kept) + ["everything"] * kept


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
    blocks = len(runner.blocks)
    runner.keep(keeps_of(blocks, 1))
    try:
        once()  # compiles, and lets libraries take their workspaces
        runner.watched = True
        peak = _peak(once, device)
    except torch.OutOfMemoryError:
        runner.keep(keeps_of(blocks, 0, attention=False))
        raise
    finally:
        runner.watched = False
    less, more = int(median(runner.taken[:-1])), runner.taken[-1]
    if peak > most:
        runner.keep(keeps_of(blocks, 0, attention=False))
        once()
        return _told(MemoryPlan(0, False, _peak(once, device), most), blocks)
    kept = min(blocks, 1 + (most - peak) // max(1, more - less))
    for _ in range(_CORRECTIONS):
        runner.keep(keeps_of(blocks, kept))
        torch.cuda.empty_cache()
        found = _peak_or_full(once, device)
        peak = most if found is None else found
        over = -(-(peak - most) // max(1, more - less)) if found is not None else 1 + kept // 8
        if over <= 0 or kept == 0:
            break
        kept = max(0, kept - over)
    runner.keep(keeps_of(blocks, kept))
    return _told(MemoryPlan(kept, True, peak, most), blocks)


def _peak(once: Callable[[], object], device: torch.device) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    once()
    torch.cuda.synchronize(device)
    return int(torch.cuda.max_memory_allocated(device))


def _peak_or_full(once: Callable[[], object], device: torch.device) -> int | None:
    """Peak of a pass after one to warm up; None if it did not fit."""
    try:
        once()
        return _peak(once, device)
    except torch.OutOfMemoryError:
        return None


def _told(plan: MemoryPlan, blocks: int) -> MemoryPlan:
    rest = "attention" if plan.attention else "nothing"
    log.info(
        "%d of %d blocks keep everything, the others %s: peak %.1f GB of %.1f GB allowed",
        plan.kept, blocks, rest, plan.peak_bytes / 1e9, plan.budget_bytes / 1e9,
    )  # fmt: skip
    if plan.peak_bytes > plan.budget_bytes:
        log.warning("training takes %.1f GB, more than it may: less does not go", plan.peak_bytes / 1e9)
    return plan
