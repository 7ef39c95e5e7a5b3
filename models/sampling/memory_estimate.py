"""How many clips a device's memory holds, measured on one: what a batch that did not fit is told."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch

from models.families.settings import SampleSettings

_GIB: Final = 2**30
# Of the memory that is left beside the weights: allocators round up, and kernels want workspace.
_USABLE: Final = 0.9


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes: of the whole device, of what stays there between batches, and of one clip on top at its peak.

    `clip` is None where not even one clip fits.
    """

    total: int
    resident: int
    clip: int | None

    @property
    def clips(self) -> int:
        """How many clips fit at once, rather too few: one clip's peak holds what is needed only once."""
        return 0 if self.clip is None else int(_USABLE * (self.total - self.resident) / max(1, self.clip))


def measure(device: torch.device, one_clip: Callable[[], object]) -> Room:
    """Run `one_clip` on the CUDA device and see what it took."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    resident = torch.cuda.memory_allocated(device)
    free, total = torch.cuda.mem_get_info(device)
    # What other programs hold is not ours to fill.
    available = free + torch.cuda.memory_reserved(device)
    try:
        one_clip()
    except torch.OutOfMemoryError:
        return Room(min(total, available), resident, None)
    return Room(min(total, available), resident, torch.cuda.max_memory_allocated(device) - resident)


def advice(settings: SampleSettings, batch: int, room: Room) -> str:
    """What to change so that a batch of `batch` clips, which did not fit, becomes one that does."""
    shape = f"{settings.height}x{settings.width}x{settings.frames}"
    memory = f"of {room.total / _GIB:.0f} GiB, weights take {room.resident / _GIB:.1f}"
    if room.clip is None:
        return (
            f"not even one clip of {shape} fits on the device ({memory}): make generate.height, width or "
            "frames smaller, set model.dtype to bfloat16 or model.quantise to fp8-storage, or take a larger "
            "GPU"
        )
    one = f"{memory} and one clip {room.clip / _GIB:.1f} GiB"
    if room.clips >= batch:
        return (
            f"generate.batch_size {batch} of {shape} did not fit, although by one clip's peak it should "
            f"({one}): is another program using this GPU?"
        )
    if room.clips < 1:
        return f"a clip of {shape} fits only just ({one}): set generate.batch_size to 1"
    decode = "" if settings.decode_batch == 1 else ", or generate.decode_batch to 1 and try a larger batch"
    return (
        f"generate.batch_size {batch} of {shape} does not fit ({one}): set generate.batch_size to "
        f"{room.clips}{decode}"
    )
