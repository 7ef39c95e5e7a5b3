from __future__ import annotations

import errno
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from data.errors import UserError, VideoError
from data.keys import canonical_json
from rewards.base import (
    CannotJudge,
    Judgement,
    LoadedClip,
    Reward,
    failed,
    frame_indices,
    guarded,
    pair_starts,
)

# Nothing that a reward says of a clip, and what a message of each looks like.
FAULTS: dict[str, Exception] = {
    "memory": MemoryError("no memory"),
    "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "cpu memory": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"
    ),
    "files": OSError(errno.EMFILE, "Too many open files"),
    "ecc": RuntimeError("CUDA error: uncorrectable ECC error encountered"),
    "defect": KeyError("frames"),
}


class Scripted:
    """A reward that does to each clip what its prompt says; it remembers the batches it was given."""

    name = "scripted"
    version = "1"
    range = (0.0, 1.0)

    def __init__(self) -> None:
        self.batches: list[int] = []

    @guarded
    def score(self, clips: Sequence[LoadedClip]) -> list[Judgement]:
        self.batches.append(len(clips))
        return [self.one(clip.prompt) for clip in clips]

    def one(self, prompt: str) -> Judgement:
        if prompt in FAULTS:
            raise FAULTS[prompt]
        if prompt == "video":
            raise VideoError("no video at all")
        if prompt == "cannot":
            raise CannotJudge("no frame rate")
        if prompt == "settings":
            raise UserError("wrong settings")
        if prompt == "failed":
            return failed("said so")
        return Judgement(float(prompt), {"seen": (1, np.float32(2.5)), "odd": math.nan})


def clip(prompt: str) -> LoadedClip:
    return LoadedClip(prompt, prompt, np.zeros((2, 8, 8, 3), np.uint8), 8.0)


def values(reward: Reward, *prompts: str) -> list[float | None]:
    return [judgement.value for judgement in reward.score([clip(prompt) for prompt in prompts])]


@pytest.mark.parametrize("bad", ["nan", "inf", "-inf", "1.5", "-0.01", "cannot", "video", "failed"])
def test_what_is_no_value_in_range_is_none_with_a_reason_and_harms_no_other_clip(bad: str) -> None:
    judged = Scripted().score([clip("0.25"), clip(bad), clip("1.0")])
    assert [judgement.value for judgement in judged] == [0.25, None, 1.0]
    assert judged[1].error
    assert judged[0].error is None


def test_reasons_say_what_happened() -> None:
    judged = Scripted().score([clip("video"), clip("cannot"), clip("nan"), clip("2")])
    assert [judgement.error for judgement in judged] == [
        "no video at all",
        "no frame rate",
        "the value is nan, not a finite number",
        "the value 2.0 lies outside [0.0, 1.0]",
    ]


def test_rounding_past_the_bound_is_the_bound() -> None:
    assert values(Scripted(), "1.000001") == [1.0]


def test_a_batch_too_large_for_memory_is_halved_until_it_fits() -> None:
    class Small(Scripted):
        @guarded
        def score(self, clips: Sequence[LoadedClip]) -> list[Judgement]:
            self.batches.append(len(clips))
            if len(clips) > 2:
                raise MemoryError
            return [Judgement(0.5) for _ in clips]

    reward = Small()
    assert values(reward, *["0"] * 5) == [0.5] * 5
    assert reward.batches == [5, 2, 3, 1, 2]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("beside", [(), ("0.5",), ("0.25", "cannot", "1.0")])
def test_a_fault_of_the_machine_is_no_clips_failure(fault: str, beside: tuple[str, ...]) -> None:
    with pytest.raises(type(FAULTS[fault])) as raised:
        values(Scripted(), *beside, fault)
    assert raised.value is FAULTS[fault]


@pytest.mark.parametrize("fault", ["cublas", "cpu memory", "files"])
def test_a_fault_that_only_a_batch_meets_harms_nobody(fault: str) -> None:
    class Small(Scripted):
        @guarded
        def score(self, clips: Sequence[LoadedClip]) -> list[Judgement]:
            if len(clips) > 1:
                raise FAULTS[fault]
            return [Judgement(0.5) for _ in clips]

    assert values(Small(), *["0"] * 5) == [0.5] * 5


def test_wrong_settings_are_not_a_clips_fault() -> None:
    with pytest.raises(UserError, match="wrong settings"):
        values(Scripted(), "0.5", "settings")


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((0, 8, 8, 3), np.uint8),
        np.zeros((2, 8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((2, 8, 8, 3), np.float32),
    ],
)
def test_what_is_no_video_is_not_passed_on(frames: NDArray[Any]) -> None:
    reward = Scripted()
    judged = reward.score([LoadedClip("x", "0.5", frames, 8.0), clip("0.5")])
    assert [judgement.value for judgement in judged] == [None, 0.5]
    assert "uint8 [T, H, W, 3]" in str(judged[0].error)
    assert reward.batches == [1]


def test_details_are_plain_json() -> None:
    judged = Scripted().score([clip("0.5")])[0]
    assert judged.detail == {"seen": [1, 2.5], "odd": None}
    canonical_json(judged.detail)


def test_no_clips_no_judgements() -> None:
    assert Scripted().score([]) == []


def test_a_judgement_is_a_value_or_an_error() -> None:
    with pytest.raises(ValueError, match="either a value or an error"):
        Judgement(None)
    with pytest.raises(ValueError, match="either a value or an error"):
        Judgement(0.5, {}, "but why")


@pytest.mark.parametrize(
    ("frames", "wanted", "expected"),
    [(17, 5, [0, 4, 8, 12, 16]), (3, 8, [0, 1, 2]), (17, 1, [8]), (1, 1, [0])],
)
def test_frame_indices_cover_the_clip(frames: int, wanted: int, expected: list[int]) -> None:
    assert frame_indices(frames, wanted) == expected


@pytest.mark.parametrize(
    "sampler", [frame_indices, lambda frames, wanted: pair_starts(frames + 2, 2, wanted)]
)
def test_samplers_repeat_nothing_and_stay_inside(sampler: Callable[[int, int], list[int]]) -> None:
    for frames in range(1, 40):
        for wanted in range(1, 45):
            chosen = sampler(frames, wanted)
            assert chosen == sorted(set(chosen))
            assert len(chosen) == min(frames, wanted)
            assert set(chosen) <= set(range(frames))


def test_pairs_lie_in_the_middle_of_equal_parts() -> None:
    assert pair_starts(17, 2, 3) == [2, 7, 12]
    assert pair_starts(2, 2, 3) == []
