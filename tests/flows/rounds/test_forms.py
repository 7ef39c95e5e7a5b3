from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from flows.config.load import load_recipe, offered
from flows.config.recipe import Recipe
from flows.rounds.forms import FORMS, form_of, overrides_of
from rewards import reward_kind, reward_kinds


def test_an_empty_form_changes_nothing() -> None:
    for form in FORMS.values():
        assert form().overrides() == []
        assert form().model_dump() == {}
    assert overrides_of({"seed": None, "finetune": {}, "overrides": []}) == []


def test_what_is_filled_in_becomes_a_setting_that_the_recipe_takes() -> None:
    given = {
        "seed": 7,
        "generate": FORMS["generate"](clips_per_prompt=3, guidance=2),
        "curate": {"feedback": "flow", "shaping_threshold": 0.25},  # as the API keeps it
        "finetune": FORMS["finetune"](objective="sft", lr=3e-5),
        "score": {"rewards": ["physics", "flow"]},
        "overrides": ["finetune.steps=9", "seed=8"],
    }
    recipe = load_recipe("recipes/mini.yaml", overrides_of(given))
    assert (recipe.generate.clips_per_prompt, recipe.generate.guidance) == (3, 2.0)
    assert (recipe.feedback, recipe.shaping.threshold, recipe.scored) == ("flow", 0.25, ["physics", "flow"])
    assert (recipe.finetune.objective, recipe.finetune.lr, recipe.finetune.steps) == ("sft", 3e-5, 9)
    assert recipe.seed == 8  # the later one wins


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"steps": "many"}, {"objective": "ppo"}, {"step": 3}, {"lr": 2.0}]
)
def test_bounds_and_names_are_the_recipes_own(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        FORMS["finetune"].model_validate(wrong)


def test_every_field_has_a_title_a_description_and_no_default_and_is_a_key_of_the_recipe() -> None:
    for form in FORMS.values():
        assert form.__doc__
        schema = form.model_json_schema()
        assert schema["additionalProperties"] is False
        assert "required" not in schema
        for place, (name, field) in enumerate(schema["properties"].items()):
            assert field["title"], name
            assert field["description"], name
            assert field["position"] == place
            assert "default" not in field
            assert "anyOf" not in field  # one kind each: the UI then shows one input
        for key in form.recipe_keys.values():
            model: Any = Recipe
            for part in key.split("."):
                if part in reward_kinds():  # settings of a reward
                    model = reward_kind(part).settings
                    continue
                field_ = model.model_fields[part]
                model = field_.annotation


def test_a_key_that_the_recipe_lacks_is_an_error_when_the_form_is_made() -> None:
    with pytest.raises(KeyError, match="gone"):
        form_of("generate", "clips", "generate", ("generate.prompts", "generate.gone"))


def test_bounds_show_in_the_form() -> None:
    steps = FORMS["finetune"].model_json_schema()["properties"]["steps"]
    assert (steps["type"], steps["minimum"], steps["maximum"]) == ("integer", 1, 1_000_000)
    assert FORMS["curate"].model_json_schema()["properties"]["shaping_kind"]["enum"] == ["binary", "graded"]


def test_the_recipes_on_offer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\n")
    monkeypatch.setenv("VIDLOOP_RECIPES", str(tmp_path))
    assert offered()[-1] == str(tmp_path / "mine.yaml")
    assert "recipes/mini.yaml" in offered()
