"""Guards: cheap measures that a cheated reward gives away. Motion, sharpness, flicker; no network.

They are rewards by protocol and are compared before and after training; none is good or bad by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from data.errors import ConfigError
from data.keys import digest
from rewards.base import CannotJudge, Judgement, LoadedClip, guarded, known_fps, pair_starts

# Raise it when the same settings would give other values.
_CODE: Final = 1
_MAX_SIDE: Final = (
    128  # Farneback's cost grows with the area, and its window below is meant for frames of this size
)


@dataclass(frozen=True)
class MotionSettings:
    """Settings of the motion guard.

    Attributes:
        stride: frames from the first to the second image of a pair; less in clips that are too short for it.
        pairs: how many pairs of a clip are measured, evenly spread over it.
    """

    stride: int = 2
    pairs: int = 6

    def __post_init__(self) -> None:
        if self.stride < 1 or self.pairs < 1:
            raise ConfigError(f"motion: stride ({self.stride}) and pairs ({self.pairs}) must be at least 1")


@dataclass(frozen=True)
class SharpnessSettings:
    """The sharpness guard has no settings."""


@dataclass(frozen=True)
class FlickerSettings:
    """The flicker guard has no settings."""


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


def sharpness(frames: NDArray[np.uint8]) -> float:
    """Variance of the Laplacian of the grey values 0..255 (Pech-Pacheco et al., 2000), mean over frames.

    It depends on the size of the frames and on what is in them: compare clips of one geometry and one prompt.
    """
    import cv2

    grey = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames)
    return float(np.mean([cv2.Laplacian(image, cv2.CV_32F, ksize=1).var() for image in grey]))


def flicker(frames: NDArray[np.uint8]) -> float:
    """Mean |m(t-1) - 2 m(t) + m(t+1)| of the frame means m of red, green and blue in 0..1; from 0 to 2.

    The second difference lets pass what fades, enters or leaves steadily, and sees what goes back and forth.
    Three channels, because a swap of colours may leave the luminance as it was.

    Raises:
        CannotJudge: fewer than three frames.
    """
    if len(frames) < 3:
        raise CannotJudge(f"flicker needs three frames or more, the clip has {len(frames)}")
    means = frames.mean(axis=(1, 2), dtype=np.float64) / 255
    return float(np.abs(np.diff(means, n=2, axis=0)).mean())


def guard_version(settings: MotionSettings | SharpnessSettings | FlickerSettings) -> str:
    """Digest of the guard's settings and code."""
    if isinstance(settings, MotionSettings):
        return digest(["motion", _CODE, settings.stride, settings.pairs])[:16]
    name = "sharpness" if isinstance(settings, SharpnessSettings) else "flicker"
    return digest([name, _CODE])[:16]


class MotionGuard:
    """`motion` as a reward; a clip of unknown frame rate has no value."""

    name: Final = "motion"
    range: Final = (0.0, float("inf"))

    def __init__(self, settings: MotionSettings) -> None:
        self.settings = settings
        self.version = guard_version(settings)

    @guarded
    def score(self, clips: Sequence[LoadedClip]) -> list[Judgement]:
        """One speed a clip."""
        return [
            Judgement(motion(clip.frames, known_fps(clip), self.settings), {"fps": clip.fps})
            for clip in clips
        ]


class SharpnessGuard:
    """`sharpness` as a reward."""

    name: Final = "sharpness"
    range: Final = (0.0, float("inf"))

    def __init__(self, settings: SharpnessSettings) -> None:
        self.version = guard_version(settings)

    @guarded
    def score(self, clips: Sequence[LoadedClip]) -> list[Judgement]:
        """One variance a clip."""
        return [Judgement(sharpness(clip.frames)) for clip in clips]


class FlickerGuard:
    """`flicker` as a reward."""

    name: Final = "flicker"
    range: Final = (0.0, 2.0)

    def __init__(self, settings: FlickerSettings) -> None:
        self.version = guard_version(settings)

    @guarded
    def score(self, clips: Sequence[LoadedClip]) -> list[Judgement]:
        """One mean second difference a clip."""
        return [Judgement(flicker(clip.frames)) for clip in clips]
