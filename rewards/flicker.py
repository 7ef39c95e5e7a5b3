"""Flicker, a guard: brightness that goes back and forth. Cheap, no network; it must not rise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from data.settings import Settings
from rewards.base import CannotJudge, Judgement, LoadedClip, guarded
from rewards.kind import RewardKind, version_of

# Raise it when the same settings would give other values.
_CODE: Final = 1


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


def flicker_version(settings: FlickerSettings) -> str:
    """Digest of the code's number; there is nothing else to it."""
    return version_of("flicker", _CODE, settings)


class FlickerReward:
    """`flicker` as a reward."""

    name: Final = "flicker"
    range: Final = (0.0, 2.0)

    def __init__(self, settings: FlickerSettings) -> None:
        self.version = flicker_version(settings)

    @guarded
    def score(self, clips: Sequence[LoadedClip]) -> list[Judgement]:
        """One mean second difference a clip."""
        return [Judgement(flicker(clip.frames)) for clip in clips]


REWARD: Final = RewardKind(
    name="flicker",
    settings=FlickerSettings,
    build=FlickerReward,
    version=flicker_version,
    range=FlickerReward.range,
    reads="frames in order",
    breaks_by="rising",
)
