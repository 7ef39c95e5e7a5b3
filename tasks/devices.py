"""Which locks a run needs before it computes: those of the devices its models will be on."""

from __future__ import annotations

import os
from typing import Final

from tasks.spread import ALL

# Environment variable that a worker's runs have: the one device they may use.
DEVICE: Final = "VIDLOOP_DEVICE"


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
