"""Sharpness, a guard: how much detail there is. Cheap, no network; a policy that learned to blur shows."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from data.settings import Settings
from rewards.base import Judgement
from rewards.kind import per_clip


class SharpnessSettings(Settings):
    """The sharpness guard has no settings."""


def sharpness(frames: NDArray[np.uint8]) -> float:
    """Variance of the Laplacian of the grey values 0..255 (Pech-Pacheco et al., 2000), mean over frames.

    It depends on the size of the frames and on what is in them: compare clips of one geometry and one prompt.
    """
    import cv2

    grey = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames)
    return float(np.mean([cv2.Laplacian(image, cv2.CV_32F, ksize=1).var() for image in grey]))


REWARD: Final = per_clip(
    "sharpness",
    SharpnessSettings,
    lambda clip, settings: Judgement(sharpness(clip.frames)),
    code=1,
    range=(0.0, float("inf")),
    reads="single frames",
)
