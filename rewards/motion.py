"""Motion, a guard: how much moves. Cheap, no network; a policy that learned to stand still shows here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from data.settings import Settings, setting
from rewards.base import CannotJudge, Judgement, LoadedClip, known_fps, pair_starts
from rewards.kind import per_clip

# Farneback's cost grows with the area, and its window below is meant for frames of this size.
_MAX_SIDE: Final = 128

Grey = NDArray[np.uint8]


class MotionSettings(Settings):
    """The motion guard: mean length of the dense flow, in short sides a second."""

    stride: int = setting(
        2,
        "Stride",
        "Frames between the two images of a pair; less in clips that are too short for it.",
        unit="frames",
        ge=1,
        le=64,
    )
    pairs: int = setting(6, "Pairs", "Measured a clip, evenly spread over it.", ge=1, le=256)


def motion(frames: NDArray[np.uint8], fps: float, settings: MotionSettings) -> float:
    """Mean length of the dense flow (Farneback, 2003), in short sides a second; 0 for a still.

    Its window smears motion over the neighbourhood of what moves, so a small object counts several times its
    area: use it to compare clips of one geometry, and the `flow` reward for speeds. Larger frames are shrunk
    to a short side of 128 first.

    Args:
        frames: uint8 [T, H, W, 3], T >= 2.
        fps: frames per second.
        settings: which pairs of frames.

    Raises:
        CannotJudge: fewer than two frames.
    """
    pairs = grey_pairs(frames, settings)
    if not pairs:
        raise CannotJudge(f"motion needs two frames or more, the clip has {len(frames)}")
    lengths = [float(np.linalg.norm(farneback(*pair), axis=-1).mean()) for pair in pairs]
    return speed(lengths, frames, fps, settings)


def grey_pairs(frames: NDArray[np.uint8], settings: MotionSettings) -> list[tuple[Grey, Grey]]:
    """The pairs of frames that are measured, grey, shrunk to a short side of 128 at most; none of one frame.

    Args:
        frames: uint8 [T, H, W, 3].
        settings: which pairs of frames.
    """
    import cv2

    stride, scale = _stride(frames, settings), min(1.0, _MAX_SIDE / min(frames.shape[1:3]))

    def grey(index: int) -> Grey:
        image = cv2.cvtColor(frames[index], cv2.COLOR_RGB2GRAY)
        if scale < 1:
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        return np.asarray(image, np.uint8)

    starts = pair_starts(len(frames), stride, settings.pairs)
    return [(grey(start), grey(start + stride)) for start in starts]


def farneback(first: Grey, second: Grey) -> NDArray[np.float32]:
    """Dense flow between two grey frames, [H, W, 2] as (x, y) in pixels."""
    import cv2

    flow = cv2.calcOpticalFlowFarneback(
        first, second, np.empty(0), pyr_scale=0.5, levels=3, winsize=9, iterations=2, poly_n=5,
        poly_sigma=1.1, flags=0,
    )  # fmt: skip
    return np.asarray(flow, np.float32)


def speed(lengths: Sequence[float], frames: NDArray[np.uint8], fps: float, settings: MotionSettings) -> float:
    """The mean of lengths in pixels of `grey_pairs`, in short sides a second."""
    side = min(_MAX_SIDE, *frames.shape[1:3])
    return float(np.mean([length / side for length in lengths])) * fps / _stride(frames, settings)


def _stride(frames: NDArray[np.uint8], settings: MotionSettings) -> int:
    return max(1, min(settings.stride, len(frames) - 1))


def _judge(clip: LoadedClip, settings: MotionSettings) -> Judgement:
    return Judgement(motion(clip.frames, known_fps(clip), settings), {"fps": clip.fps})


REWARD: Final = per_clip(
    "motion",
    MotionSettings,
    _judge,
    code=1,
    range=(0.0, float("inf")),
    reads="frames in order and their rate",
    within=(0.9, 1.1),
)
