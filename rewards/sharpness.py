"""Sharpness, a guard: how much detail there is. Cheap, no network; a policy that learned to blur shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from data.settings import Settings
from rewards.base import Judgement, LoadedClip, guarded
from rewards.kind import RewardKind, version_of

# Raise it when the same settings would give other values.
_CODE: Final = 1


class SharpnessSettings(Settings):
    """The sharpness guard has no settings."""


def sharpness(frames: NDArray[np.uint8]) -> float:
    """Variance of the Laplacian of the grey values 0..255 (Pech-Pacheco et al., 2000), mean over frames.

    It depends on the size of the frames and on what is in them: compare clips of one geometry and one prompt.
    """
    import cv2

    grey = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames)
    return float(np.mean([cv2.Laplacian(image, cv2.CV_32F, ksize=1).var() for image in grey]))


def sharpness_version(settings: SharpnessSettings) -> str:
    """Digest of the code's number; there is nothing else to it."""
    return version_of("sharpness", _CODE, settings)


class SharpnessReward:
    """`sharpness` as a reward."""

    name: Final = "sharpness"
    range: Final = (0.0, float("inf"))

    def __init__(self, settings: SharpnessSettings) -> None:
        self.version = sharpness_version(settings)

    @guarded
    def score(self, clips: Sequence[LoadedClip]) -> list[Judgement]:
        """One variance a clip."""
        return [Judgement(sharpness(clip.frames)) for clip in clips]


REWARD: Final = RewardKind(
    name="sharpness",
    settings=SharpnessSettings,
    build=SharpnessReward,
    version=sharpness_version,
    range=SharpnessReward.range,
    reads="single frames",
)
