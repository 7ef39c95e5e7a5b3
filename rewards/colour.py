"""Colour, a guard: how colourful the frames are. Cheap, no network; grey or garish clips show here."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from data.settings import Settings
from rewards.base import Judgement
from rewards.kind import per_clip


class ColourSettings(Settings):
    """The colour guard has no settings."""


def colourfulness(frames: NDArray[np.uint8]) -> float:
    """Colourfulness M of Hasler and Suesstrunk (2003, section 5), mean over frames; 0 for grey.

    With rg = R - G and yb = (R + G) / 2 - B of the values 0..255, M is the length of their standard
    deviations plus 0.3 times the length of their means: from 15 "slightly" over 45 "quite" to 82 "highly".
    """
    found = []
    for frame in frames:
        red, green, blue = np.moveaxis(frame.astype(np.float64), -1, 0)
        opponents = np.stack([red - green, (red + green) / 2 - blue]).reshape(2, -1)
        spread, middle = opponents.std(axis=1), opponents.mean(axis=1)
        found.append(np.linalg.norm(spread) + 0.3 * np.linalg.norm(middle))
    return float(np.mean(found))


REWARD: Final = per_clip(
    "colour",
    ColourSettings,
    lambda clip, settings: Judgement(colourfulness(clip.frames)),
    code=1,
    range=(0.0, float("inf")),
    reads="single frames",
    within=(0.8, 1.25),
)
