"""Which lock a run needs before it computes: that of the device its model will be on."""

from __future__ import annotations

import os
from typing import Final

# Environment variable that a worker's runs have: the one device they may use.
DEVICE: Final = "VIDLOOP_DEVICE"


def lock_name(wanted: str) -> str | None:
    """Name of the lock for a recipe's `model.device`; None where runs may share.

    A worker's run takes its worker's device. Elsewhere a GPU has the name that the driver gives it, whatever
    CUDA_VISIBLE_DEVICES calls it here; the CPU is shared.

    Args:
        wanted: auto, cpu, cuda or cuda:N.
    """
    named = os.environ.get(DEVICE)
    if named:
        return named
    if wanted == "cpu":
        return None
    import torch

    if not torch.cuda.is_available():
        return None  # what needs a GPU says so when its model is loaded
    index = int(wanted.partition(":")[2] or 0)
    if index >= torch.cuda.device_count():
        return None  # as above
    return f"GPU-{torch.cuda.get_device_properties(index).uuid}"
