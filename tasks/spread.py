"""One stage on all GPUs of this machine: a worker process for each, in place of this one.

A recipe asks for it with `model.device: cuda:all`. Every worker sees one GPU and works on as many units at a
time as the recipe has workers, as a round on one GPU does: while one batch is computed, another is written.
Units are cut before they are shared out, so a clip does not depend on how many GPUs there were.

Workers start with the first unit that must be computed and end with the stage: the memory they held is free
for what comes next.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from data.threads import cores
from tasks.networks import networks_told, report_network
from tasks.worker_pool import DEVICES, Job, WorkerPool

# Environment variable that a worker's runs have: the one device they may use.
DEVICE: Final = "VIDLOOP_DEVICE"
# `model.device` of a recipe that wants every GPU.
ALL: Final = "cuda:all"


class Spreads(Job, Protocol):
    """A unit, as far as this module knows it."""

    @property
    def spreads(self) -> bool:
        """Whether it may run in another process: not if it needs what only this one has, such as a server."""


_pool: WorkerPool | None = None


@contextmanager
def spread_over(devices: Sequence[str], slots: int) -> Iterator[None]:
    """Within: units that spread run in a process for each of `devices`; with fewer than two, all run here."""
    global _pool
    if len(devices) < 2:
        yield
        return
    assert _pool is None, "one stage at a time"
    _pool = WorkerPool(devices, slots, threads=max(1, cores() // len(devices)))
    try:
        yield
    finally:
        pool, _pool = _pool, None
        pool.close()


@dataclass(frozen=True)
class _Listened:
    """A unit in a worker, which returns what it reported there of its networks."""

    unit: Spreads

    def run(self) -> dict[str, str]:
        found: dict[str, str] = {}
        with networks_told(found.__setitem__):
            self.unit.run()
        return found


def run(unit: Spreads) -> None:
    """Run `unit` where it belongs. Raises what it raises."""
    if _pool is None:
        unit.run()
    elif unit.spreads:
        for role, line in _pool.run(_Listened(unit)).items():
            report_network(role, line)
    else:
        _pool.close()  # it may need the memory that the others hold
        unit.run()


def gpus(device: str) -> list[str]:
    """The GPUs that a recipe's `model.device` wants shared out, by their names in CUDA_VISIBLE_DEVICES."""
    return visible() if device == ALL else []


def visible() -> list[str]:
    """Every GPU that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count = torch.cuda.device_count()
    named = [name for name in os.environ.get(DEVICES, "").split(",") if name]
    return named if len(named) == count else [str(index) for index in range(count)]


def lock_names(wanted: str) -> list[str]:
    """Names of the locks for a recipe's `model.device`, sorted; [] where runs may share it.

    A worker's run takes its worker's device. Elsewhere a GPU has the name that the driver gives it, whatever
    CUDA_VISIBLE_DEVICES calls it here; the CPU is shared.

    Args:
        wanted: auto, cpu, cuda, cuda:N or cuda:all.
    """
    named = os.environ.get(DEVICE)
    if named:
        return [named]
    if wanted == "cpu":
        return []
    import torch

    if not torch.cuda.is_available():
        return []  # what needs a GPU says so when its model is loaded
    count = torch.cuda.device_count()
    # Two runs that took them in different orders would each wait for the other's.
    indices = range(count) if wanted == ALL else [int(wanted.partition(":")[2] or 0)]
    return sorted(f"GPU-{torch.cuda.get_device_properties(index).uuid}" for index in indices if index < count)
