"""Processes that train one adapter together, a GPU each: who computes what, and how it is added up.

Every process holds the whole network and the whole adapter, draws the same batches and takes the same steps;
only the micro-batches of a step are dealt out, and their gradients summed over all. So the result is that of
one process up to the order of a sum. A process that is alone needs none of this: `ProcessGroup()`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from data.errors import ConfigError

T = TypeVar("T")

# Where the processes find one another: a file, so that nobody listens for strangers.
RENDEZVOUS: Final = "VIDLOOP_RENDEZVOUS"
# The first step may compile for minutes in one process while the others wait.
_PATIENCE: Final = timedelta(minutes=30)


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """One process of `size`.

    Attributes:
        rank: 0 is the one that writes checkpoints and hands over the result.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process speaks for all."""
        return self.rank == 0

    def shard(self, items: Sequence[T]) -> list[tuple[int, T]]:
        """This process's part of `items`, with their places: every `size`-th from `rank` on."""
        return [(place, items[place]) for place in range(self.rank, len(items), self.size)]

    def all_reduce_sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace float32 tensors, alike in all processes, by their sums."""
        if self.size > 1:
            flat = torch.cat([tensor.flatten() for tensor in tensors])
            dist.all_reduce(flat)
            self._spread(flat, tensors)

    def all_reduce_max(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their element-wise maxima over all processes. There may be none of them."""
        if self.size > 1 and tensors:  # alike in all processes: either all of them talk, or none
            flat = torch.cat([tensor.flatten() for tensor in tensors])
            dist.all_reduce(flat, dist.ReduceOp.MAX)
            self._spread(flat, tensors)

    def all_reduce_min(self, value: float, device: torch.device) -> float:
        """The least of the processes' numbers."""
        if self.size == 1:
            return value
        found = torch.tensor([value], dtype=torch.float64, device=device)
        dist.all_reduce(found, dist.ReduceOp.MIN)
        return float(found)

    def _spread(self, flat: Tensor, tensors: Sequence[Tensor]) -> None:
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))


@contextmanager
def process_group(device: str) -> Iterator[tuple[ProcessGroup, torch.device]]:
    """Within: this process is part of the group that its environment names, on a device of its own.

    RANK, WORLD_SIZE and LOCAL_RANK are what `torchrun`, `accelerate launch` and `models.training.launch`
    set; without them it is alone. The processes meet at the file that VIDLOOP_RENDEZVOUS names, else at
    MASTER_ADDR.

    Args:
        device: "cpu", or "cuda": the LOCAL_RANK-th GPU.

    Raises:
        ConfigError: there are more processes than GPUs.
    """
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    place = int(os.environ.get("LOCAL_RANK", str(rank)))
    own = torch.device(device)
    if own.type == "cuda":
        check_devices(place + 1)
        own = torch.device("cuda", place)
        torch.cuda.set_device(own)
    if size == 1:
        yield ProcessGroup(), own
        return
    met = os.environ.get(RENDEZVOUS)
    dist.init_process_group(
        "nccl" if own.type == "cuda" else "gloo",
        init_method=f"file://{met}" if met else "env://",
        rank=rank,
        world_size=size,
        timeout=_PATIENCE,
        device_id=own if own.type == "cuda" else None,
    )
    try:
        yield ProcessGroup(rank, size), own
    finally:
        dist.destroy_process_group()


def check_devices(processes: int) -> None:
    """Raise ConfigError if there are fewer GPUs than `processes`."""
    count = torch.cuda.device_count()
    if processes > count:
        raise ConfigError(
            f"finetune.processes asks for {processes} GPUs, one a process, and this machine shows {count}: "
            f"set it to {max(1, count)} or less, or see CUDA_VISIBLE_DEVICES"
        )
