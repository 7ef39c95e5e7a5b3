"""Flicker, a guard: brightness that goes back and forth. Cheap, no network; it shows flashing, and stills."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from data.settings import Settings
from rewards.base import CannotJudge, Judgement
from rewards.kind import per_clip


class FlickerSettings(Settings):
    """The flicker guard has no settings."""


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


REWARD: Final = per_clip(
    "flicker",
    FlickerSettings,
    lambda clip, settings: Judgement(flicker(clip.frames)),
    code=1,
    range=(0.0, 2.0),
    reads="frames in order",
    within=(0.4, 1.25),
)
