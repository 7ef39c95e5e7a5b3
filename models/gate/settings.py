"""When a candidate may become champion."""

from __future__ import annotations

from typing import ClassVar, Final

from data.settings import Settings, setting

Within = tuple[float, float | None]
"""Lowest and highest ratio after / before that a guard allows; None: it may rise."""

DIVERSITY: Final = "diversity"
DIVERSITY_WITHIN: Final[Within] = (0.8, 1.5)


class Limits(Settings):
    """Between what a guard's ratio after / before must stay. What is null is as the guard itself says."""

    low: float | None = setting(
        None,
        "Low",
        "It breaks when the interval of the ratio lies wholly below this; 0: it may fall; null: its own.",
        ge=0.0,
        le=1.0,
    )
    high: float | None = setting(
        None,
        "High",
        "It breaks when the interval lies wholly above this; a gain that is wanted takes a higher one; "
        "null: its own.",
        ge=1.0,
    )

    def within(self, own: Within) -> Within:
        """The limits that hold, where the guard itself says `own`."""
        return (own[0] if self.low is None else self.low, own[1] if self.high is None else self.high)


class GateSettings(Settings):
    """When a candidate may become champion: the interval of its gain lies above zero, and no guard breaks."""

    RETIRED: ClassVar[dict[str, str]] = {
        "draws": "the gate computes its intervals, and draws nothing",
        "min_ratio": "each guard has limits of its own: gate.limits.GUARD.low",
        "max_ratio": "each guard has limits of its own: gate.limits.GUARD.high",
    }

    confidence: float = setting(
        0.95,
        "Confidence",
        "Of the gain's interval, and of all questions to the guards together: at 0.95 a candidate that "
        "changes nothing is promoted in 2.5% of rounds, and some guard breaks by chance in at most 5%.",
        gt=0.5,
        lt=1.0,
    )
    limits: dict[str, Limits] = setting(
        {}, "Limits", "By a guard's name, where its own limits (docs/guards.md) do not suit."
    )
    min_drift: float = setting(
        0.8,
        "Lowest drift",
        "What a guard may come to over all promotions of a series of rounds (after / before of each, "
        "multiplied), or its own lower limit if that is lower; a candidate that would take it below is not "
        "promoted.",
        gt=0.0,
        le=1.0,
    )
    max_drift: float = setting(
        1.25,
        "Highest drift",
        "The same upwards, of a guard that has an upper limit.",
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
        "One-sided level of a second interval, of the gate's clips and fresh ones of both policies together, "
        "that must lie above zero too; null: none. `improve` and nights write it, from `improve.error`.",
        gt=0.0,
        lt=0.5,
    )
