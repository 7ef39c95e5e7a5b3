"""Tempo, a guard: how fast things go, whatever goes. Cheap, no network; slow motion and haste show here."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from data.settings import Settings
from rewards.base import CannotJudge, Judgement, LoadedClip, known_fps
from rewards.kind import per_clip

# Seen coarsely, a place takes several frames to change: seen finely, motion is over from one to the next.
_SIDE: Final = 32
# Grey levels a frame below which a change is noise rather than motion.
_STILL: Final = 0.25


class TempoSettings(Settings):
    """The tempo guard has no settings."""


def tempo(frames: NDArray[np.uint8], fps: float) -> float:
    """How fast places of the picture turn from lighter to darker and back, per second; 0 for a still.

    Of the grey values x(t) of the picture, shrunk to a short side of 32: at each place the mean of
    |x(t-1) - 2 x(t) + x(t+1)|, over that of |x(t+1) - x(t-1)| / 2 and a quarter of a grey level; the mean of
    that over places. It is the mobility of Hjorth (1970) of the change, with absolute values. How much
    changes, and how far, goes into both and mostly cancels, so clips of a prompt agree better than in motion.

    Args:
        frames: uint8 [T, H, W, 3], T >= 3.
        fps: frames per second.

    Raises:
        CannotJudge: fewer than three frames.
    """
    if len(frames) < 3:
        raise CannotJudge(f"tempo needs three frames or more, the clip has {len(frames)}")
    grey = np.stack([_small(frame) for frame in frames])
    turns = np.abs(np.diff(grey, n=2, axis=0)).mean(axis=0)
    changes = np.abs(grey[2:] - grey[:-2]).mean(axis=0) / 2
    return float((turns / (changes + _STILL)).mean(dtype=np.float64)) * fps


def _small(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
    import cv2

    # Not rounded to whole grey levels: slow motion changes a place by less than one a frame.
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
    scale = min(1.0, _SIDE / min(grey.shape))
    return np.asarray(cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.float32)


def _judge(clip: LoadedClip, settings: TempoSettings) -> Judgement:
    return Judgement(tempo(clip.frames, known_fps(clip)), {"fps": clip.fps})


REWARD: Final = per_clip(
    "tempo",
    TempoSettings,
    _judge,
    code=1,
    range=(0.0, float("inf")),
    reads="frames in order and their rate",
    within=(0.94, 1.06),
)
