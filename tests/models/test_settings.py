import pytest
from pydantic import ValidationError

from data.settings import RenamedKey
from models.families.settings import ModelSettings
from models.gate.settings import GateSettings, Limits


def test_model_and_gate_settings_are_checked() -> None:
    with pytest.raises(ValidationError, match="dtype"):
        ModelSettings(device="cpu", family="wan", path="x", dtype="float8")
    with pytest.raises(ValidationError, match="confidence"):
        GateSettings(confidence=1.0)
    for change in ({"low": 1.1}, {"high": 0.9}):
        with pytest.raises(ValidationError, match=next(iter(change))):
            Limits(**change)


def test_limits_of_a_recipe_stand_in_place_of_those_of_the_guard_side_by_side() -> None:
    assert Limits().within((0.9, 1.1)) == (0.9, 1.1)
    assert Limits(high=2.0).within((0.9, 1.1)) == (0.9, 2.0)
    assert Limits(low=0.0).within((0.9, None)) == (0.0, None)


def test_limits_for_all_guards_are_told_to_be_gone() -> None:
    with pytest.warns(RenamedKey, match=r"min_ratio is no longer read: .*gate\.limits"):
        assert GateSettings.model_validate({"min_ratio": 0.7}) == GateSettings()
