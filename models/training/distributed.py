"""Processes that train one adapter together, a GPU each: how they are started, find one another, and add up.

Every process holds the whole network and the whole adapter, draws the same batches and takes the same steps;
only the micro-batches of a step are dealt out, and their gradients summed over all. So the result is that of
one process up to the order of a sum. A process that is alone needs none of this (`ALONE`).

Started here they are plain children, with the environment that torchrun would give them: no agent, no port.
They meet at a file and talk over the loopback interface (and, between GPUs, over what NCCL finds).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from data.errors import ConfigError, StageFailed
from data.processes import GRACE_S, end, tail
from data.resources import python_path

T = TypeVar("T")

# Where the processes find one another: a file, so that nobody listens for strangers.
_RENDEZVOUS: Final = "VIDLOOP_RENDEZVOUS"
# The first step may compile for minutes in one process while the others wait.
_PATIENCE: Final = timedelta(minutes=30)
_POLL_SECONDS: Final = 0.2
_TAIL: Final = 4000


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """One process of `size`; that of rank 0 writes checkpoints and hands over the result."""

    rank: int = 0
    size: int = 1

    def shard(self, items: Sequence[T]) -> Sequence[T]:
        """This process's part of `items`: every `size`-th from `rank` on."""
        return items[self.rank :: self.size]

    def all_reduce(self, tensors: Sequence[Tensor], op: dist.ReduceOp.RedOpType = dist.ReduceOp.SUM) -> None:
        """Replace tensors of one dtype by their sums over all processes, or by what else `op` says.

        There are equally many of them in every process, maybe none.
        """
        if self.size > 1 and tensors:
            flat = torch.cat([tensor.flatten() for tensor in tensors])
            dist.all_reduce(flat, op)
            for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def least(self, value: float, device: torch.device) -> float:
        """The least of the processes' numbers."""
        found = torch.tensor(value, dtype=torch.float64, device=device)
        self.all_reduce([found], dist.ReduceOp.MIN)
        return float(found)


ALONE: Final = ProcessGroup()


@contextmanager
def process_group(device: str) -> Iterator[tuple[ProcessGroup, torch.device]]:
    """Within: this process is part of the group that its environment names, on a device of its own.

    RANK, WORLD_SIZE and LOCAL_RANK are what `torchrun`, `accelerate launch` and `launch_processes` set;
    without them it is alone. The processes meet at the file that VIDLOOP_RENDEZVOUS names, else at
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
        yield ALONE, own
        return
    met = os.environ.get(_RENDEZVOUS)
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


def launch_processes(
    command: Sequence[str],
    processes: int,
    folder: Path,
    while_running: Callable[[], object] = lambda: None,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Run `python <command>` once a rank and wait for all.

    Args:
        command: arguments after the interpreter, for example ("-m", "a.module", "/a/folder"). Its standard
            input ends with this process, see `data.processes.on_parent_exit`.
        folder: an empty one for the meeting point and each process's output (`rank-0.log`, ...).
        while_running: called a few times a second, and once more at the end.
        variables: more of the processes' environment, before what this program's own has.

    Raises:
        StageFailed: a process failed; the others were ended, and the end of its output is in the message.
    """
    children: list[subprocess.Popen[bytes]] = []
    logs = [folder / f"rank-{rank}.log" for rank in range(processes)]
    try:
        for rank, log in enumerate(logs):
            environment = {
                # In a process of its own: a value given by hand wins.
                "NCCL_NVLS_ENABLE": "0",
                "GLOO_SOCKET_IFNAME": "lo",
                "NCCL_SOCKET_IFNAME": "lo",
                "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes)),
                **os.environ,
                **variables,
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(processes),
                "PYTHONPATH": python_path(),
                _RENDEZVOUS: str(folder / "rendezvous"),
            }
            with log.open("wb") as output:
                child = subprocess.Popen(
                    [sys.executable, *command],
                    env=environment,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.PIPE,
                )
            children.append(child)
        # Every one is asked, each time: `any` over the polls would stop at the first that still runs.
        while None in (codes := [child.poll() for child in children]) and not any(codes):
            while_running()
            time.sleep(_POLL_SECONDS)
        for rank, code in enumerate(codes):
            if code:
                raise StageFailed(
                    "finetune",
                    f"training process {rank} ended with exit code {code}; the others were ended. The end of "
                    f"its log:\n{tail(logs[rank], _TAIL)}",
                )
        while_running()
    finally:
        end(lambda: [child.pid for child in children if child.poll() is None], GRACE_S)
