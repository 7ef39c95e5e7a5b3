"""An error budget: what one of many rounds may spend, and what its confirmation must hold."""

from __future__ import annotations

import pytest

from models.gate import budget
from models.gate.drift import drifted
from models.gate.settings import GateSettings, Within


@pytest.mark.parametrize(
    ("error", "horizon", "confidence", "level"),
    [
        (0.05, 365, 0.95, 0.05 / 365),
        (0.01, 30, 0.9, 0.01 / 30),
        (0.05, 2, 0.95, None),  # two rounds of 2.5% are 5%
        (0.05, 1, 0.95, None),
        (0.05, 3, 0.95, 0.05 / 3),
        (1.0, 365, 0.6, 1 / 365),
    ],
)
def test_what_has_the_last_word_spends_the_rounds_part_at_most(
    error: float, horizon: int, confidence: float, level: float | None
) -> None:
    found = budget.level(error, horizon, confidence)
    assert found == (None if level is None else pytest.approx(level, rel=1e-12))
    assert (found or budget.gate_level(confidence)) * horizon <= error + 1e-12


WITHIN: dict[str, Within] = {
    "motion": (0.8, None),
    "sharpness": (0.8, None),
    "flicker": (0.0, 1.25),
    "luma": (0.9, 1.1),
    "own_motion": (0.7, 1.5),
}


@pytest.mark.parametrize(
    ("name", "earlier", "now", "beyond"),
    [
        ("motion", 0.9, 0.9, False),
        ("motion", 0.9, 0.88, True),
        ("motion", 0.7, 1.2, False),
        ("motion", 2.0, 2.0, False),
        ("flicker", 1.2, 1.0, False),
        ("flicker", 1.2, 1.1, True),
        ("flicker", 0.2, 0.2, False),
        ("luma", 1.1, 1.1, False),
        ("luma", 1.2, 1.1, True),
        ("luma", 0.9, 0.8, True),
        ("own_motion", 1.3, 1.1, False),
        ("own_motion", 1.3, 1.3, True),
    ],
)
def test_drift_multiplies(name: str, earlier: float, now: float, beyond: bool) -> None:
    settings = GateSettings(drift={name: earlier})
    said = drifted({name: now, "sharpness": 0.1}, settings, WITHIN)
    assert bool(said) == beyond
    assert all(f"{name} would come to {earlier * now:.2f} times" in one for one in said)
    assert drifted({name: None}, settings, WITHIN) == drifted({name: 0.1}, GateSettings(), WITHIN) == []
