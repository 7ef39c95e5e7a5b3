"""Motion, a guard: how much moves. Cheap, no network; a policy that learned to stand still shows here."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from data.settings import Settings, setting
from rewards.base import CannotJudge, Judgement, LoadedClip, known_fps, pair_starts
from rewards.kind import per_clip

# Farneback's cost grows with the area, and its window below is meant for frames of this size.
_MAX_SIDE: Final = 128


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
    import cv2

    if len(frames) < 2:
        raise CannotJudge(f"motion needs two frames or more, the clip has {len(frames)}")
    stride = min(settings.stride, len(frames) - 1)
    scale = min(1.0, _MAX_SIDE / min(frames.shape[1:3]))
    lengths = []
    for start in pair_starts(len(frames), stride, settings.pairs):
        pair = [cv2.cvtColor(frames[i], cv2.COLOR_RGB2GRAY) for i in (start, start + stride)]
        if scale < 1:
            pair = [
                cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) for image in pair
            ]
        flow = cv2.calcOpticalFlowFarneback(
            pair[0], pair[1], np.empty(0), pyr_scale=0.5, levels=3, winsize=9, iterations=2, poly_n=5,
            poly_sigma=1.1, flags=0,
        )  # fmt: skip
        lengths.append(float(np.linalg.norm(flow, axis=-1).mean()) / min(flow.shape[:2]))
    return float(np.mean(lengths)) * fps / stride


def _judge(clip: LoadedClip, settings: MotionSettings) -> Judgement:
    return Judgement(motion(clip.frames, known_fps(clip), settings), {"fps": clip.fps})


REWARD: Final = per_clip(
    "motion",
    MotionSettings,
    _judge,
    code=1,
    range=(0.0, float("inf")),
    reads="frames in order and their rate",
)
