"""When a candidate may become champion."""

from __future__ import annotations

from data.settings import Settings, setting


class GateSettings(Settings):
    """When a candidate may become champion: the interval of its gain lies above zero, and no guard breaks."""

    draws: int = setting(10_000, "Draws", "Bootstrap draws over prompts.", ge=100, le=1_000_000)
    confidence: float = setting(
        0.95,
        "Confidence",
        "Of intervals and guards: at 0.95 the outer 2.5% on each side are cut off.",
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
