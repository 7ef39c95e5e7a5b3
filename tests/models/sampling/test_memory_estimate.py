"""What a batch that did not fit is told. The measurement itself needs a GPU."""

from __future__ import annotations

import pytest
import torch

from data.errors import UserError
from models.families.settings import ModelSettings, SampleSettings
from models.sampling.memory_estimate import Room, advice
from models.sampling.sampler import Sampler

GIB = 2**30
SETTINGS = SampleSettings(steps=50, guidance=5.0, height=480, width=832, frames=33, max_sequence_length=512)


def test_the_advice_names_a_batch_that_fits() -> None:
    room = Room(total=80 * GIB, resident=30 * GIB, clip=6 * GIB)
    assert room.clips == 7  # 0.9 of 50 GiB
    said = advice(SETTINGS, 16, room)
    assert "generate.batch_size 16 of 480x832x33 does not fit" in said
    assert "of 80 GiB, weights take 30.0 and one clip 6.0 GiB" in said
    assert "set generate.batch_size to 7, or generate.decode_batch to 1" in said


@pytest.mark.parametrize(
    ("room", "said"),
    [
        (Room(24 * GIB, 20 * GIB, None), "not even one clip of 480x832x33 fits"),
        (Room(24 * GIB, 20 * GIB, 4 * GIB), "fits only just"),
        (Room(80 * GIB, 20 * GIB, GIB), "is another program using this GPU"),
    ],
)
def test_the_advice_differs_by_what_is_wrong(room: Room, said: str) -> None:
    assert said in advice(SETTINGS, 16, room)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="memory is measured on a GPU")
def test_a_batch_too_large_for_the_gpu_is_told_what_fits(model: ModelSettings) -> None:

    sampler = Sampler.open(
        model.changed(device="cuda", compile=False),
        SampleSettings(steps=2, guidance=1.0, height=512, width=512, frames=81, max_sequence_length=16),
    )
    free, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction(min(1.0, (4 * GIB) / total))
    try:
        with pytest.raises(UserError, match=r"set generate.batch_size to|fits only just"):
            sampler.generate(["a red ball"] * 512, list(range(512)))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert free > 0
