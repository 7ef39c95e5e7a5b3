import pytest
from pydantic import ValidationError

from models.families.settings import ModelSettings
from models.gate.settings import GateSettings


def test_model_and_gate_settings_are_checked() -> None:
    with pytest.raises(ValidationError, match="dtype"):
        ModelSettings(device="cpu", family="wan", path="x", dtype="float8")
    for change in ({"confidence": 1.0}, {"min_ratio": 1.1}, {"max_ratio": 0.9}):
        with pytest.raises(ValidationError, match=next(iter(change))):
            GateSettings(**change)
