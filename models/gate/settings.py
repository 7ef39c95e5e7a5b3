"""When a candidate may become champion."""

from __future__ import annotations

from typing import ClassVar

from data.settings import Settings, setting


class GateSettings(Settings):
    """When a candidate may become champion: the interval of its gain lies above zero, and no guard breaks."""

    RETIRED: ClassVar[dict[str, str]] = {"draws": "the gate computes its intervals, and draws nothing"}

    confidence: float = setting(
        0.95,
        "Confidence",
        "Of the gain's interval, and of all questions to the guards together: at 0.95 a candidate that "
        "changes nothing is promoted in 2.5% of rounds, and some guard breaks by chance in at most 5%.",
        gt=0.5,
        lt=1.0,
    )
    min_ratio: float = setting(
        0.8,
        "Lowest ratio",
        "A guard that should not fall (motion, diversity, sharpness) breaks when the interval of "
        "after / before lies wholly below this.",
        gt=0.0,
        le=1.0,
    )
    max_ratio: float = setting(
        1.25,
        "Highest ratio",
        "A guard that should not rise (flicker) breaks when it lies wholly above this.",
        ge=1.0,
    )
