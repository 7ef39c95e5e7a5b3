"""Sharpness and grain, guards: how much detail the picture has, and its pixels. Cheap, no network."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from data.settings import Settings
from rewards.base import Judgement
from rewards.kind import per_clip

# A pattern from pixel to pixel does not pass this Gaussian (a checkerboard keeps 0.005% of its amplitude),
# edges do: what they hold lies around one cycle in four pixels.
_SIGMA: Final = 1.0


class SharpnessSettings(Settings):
    """The sharpness guard has no settings."""


class GrainSettings(Settings):
    """The grain guard has no settings."""


def sharpness(frames: NDArray[np.uint8]) -> float:
    """Detail that pictures hold: RMS of the Laplacian of Gaussian (sigma 1 px) of the grey values 0..255.

    The band-limited form (Marr and Hildreth, 1980) of the measure of Pech-Pacheco et al. (2000): a grid of
    pixels does not feign it. Mean over frames; compare clips of one geometry and one prompt.

    Args:
        frames: uint8 [T, H, W, 3].
    """
    return _detail(frames, _SIGMA)


def grain(frames: NDArray[np.uint8]) -> float:
    """Detail from pixel to pixel: RMS of the Laplacian of the grey values 0..255 (Pech-Pacheco et al., 2000).

    Noise and grids of pixels raise it, a faint blur lowers it. Mean over frames.

    Args:
        frames: uint8 [T, H, W, 3].
    """
    return _detail(frames, 0.0)


def _detail(frames: NDArray[np.uint8], sigma: float) -> float:
    import cv2

    found = []
    for frame in frames:
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
        if sigma:
            grey = cv2.GaussianBlur(grey, (0, 0), sigma)
        found.append(cv2.Laplacian(grey, cv2.CV_32F, ksize=1).std())
    return float(np.mean(found))


REWARD: Final = (
    per_clip(
        "sharpness",
        SharpnessSettings,
        lambda clip, settings: Judgement(sharpness(clip.frames)),
        code=2,
        range=(0.0, float("inf")),
        reads="single frames",
        within=(0.9, 1.25),
    ),
    per_clip(
        "grain",
        GrainSettings,
        lambda clip, settings: Judgement(grain(clip.frames)),
        code=1,
        range=(0.0, float("inf")),
        reads="single frames",
        within=(0.75, 1.35),
    ),
)
