"""Luma, a guard: how light the frames are. Cheap, no network; night or glare show here."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from data.settings import Settings
from rewards.base import Judgement
from rewards.kind import per_clip

# Weights of red, green and blue in luma (ITU-R BT.601).
_LUMA: Final = np.array([0.299, 0.587, 0.114])


class LumaSettings(Settings):
    """The luma guard has no settings."""


def luma(frames: NDArray[np.uint8]) -> float:
    """Mean luma (ITU-R BT.601) of all pixels, from 0, black, to 1, white.

    Args:
        frames: uint8 [T, H, W, 3].
    """
    import cv2

    means = np.array([cv2.mean(frame)[:3] for frame in frames])
    return float(means.mean(axis=0) @ _LUMA) / 255


REWARD: Final = per_clip(
    "luma",
    LumaSettings,
    lambda clip, settings: Judgement(luma(clip.frames)),
    code=1,
    range=(0.0, 1.0),
    reads="single frames",
    within=(0.9, 1.1),
)
