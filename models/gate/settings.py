"""When a candidate may become champion."""

from __future__ import annotations

from typing import ClassVar

from data.settings import Settings, setting
from models.gate.budget import LARGEST


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
    min_drift: float = setting(
        0.8,
        "Lowest drift",
        "What such a guard may come to over all promotions of a series of rounds (after / before of each, "
        "multiplied); a candidate that would take it below this is not promoted.",
        gt=0.0,
        le=1.0,
    )
    max_drift: float = setting(
        1.25,
        "Highest drift",
        "The same of a guard that should not rise.",
        ge=1.0,
    )
    drift: dict[str, float] = setting(
        {},
        "Drift so far",
        "What each guard has come to over the promotions before this round. `improve` and nights write it "
        "here; without it no drift is judged.",
    )
    confirm: float | None = setting(
        None,
        "Confirmation",
        "One-sided level of a second examination, on clips of both policies that nobody has seen, which the "
        "gate's yes then needs; null: none. `improve` and nights write it here, from `improve.error`.",
        gt=0.0,
        le=LARGEST,
    )
