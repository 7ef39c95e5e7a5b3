"""A form and its deployment's parameters fit each other, whatever the folders of recipes hold today."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from flows.serving.run_form import fitted

SHIPPED = "recipes/mini.yaml"
OWN = "/srv/recipes/ours.yaml"


def schema(*choices: str) -> dict[str, Any]:
    recipe = {"type": "string", "title": "Recipe", "default": SHIPPED, "enum": [*choices]}
    seed = {"type": "integer", "title": "Seed", "default": None}
    return {"type": "object", "properties": {"recipe": recipe, "seed": seed}, "required": []}


def test_what_is_offered_stands_as_it_is_and_no_number_is_null() -> None:
    given = schema(SHIPPED, OWN)
    before = deepcopy(given)
    form, parameters, said = fitted(given, {"recipe": SHIPPED}, {"recipe": OWN, "gone": 1})
    assert given == before
    assert form["properties"]["recipe"] == before["properties"]["recipe"]
    assert form["properties"]["seed"] == {"type": "integer", "title": "Seed"}
    assert (form["type"], form["required"]) == ("object", [])
    assert (parameters, said) == ({"recipe": OWN}, [])


def test_a_default_that_is_not_offered_becomes_the_first_choice() -> None:
    """Whoever mounts a folder of their own over the checkout's has none of its recipes."""
    form, parameters, said = fitted(schema(OWN), {"recipe": SHIPPED}, {})
    assert form["properties"]["recipe"]["default"] == OWN
    assert (parameters, said) == ({"recipe": OWN}, [])


def test_where_nothing_is_offered_any_path_will_do() -> None:
    """The server refuses an empty list of choices, with whatever stands in it."""
    form, parameters, said = fitted(schema(), {"recipe": SHIPPED}, {})
    assert "enum" not in form["properties"]["recipe"]
    assert (parameters, said) == ({"recipe": SHIPPED}, [])


@pytest.mark.parametrize("declared", [{"recipe": SHIPPED}, {}])
def test_a_persons_choice_stays_and_is_told_of(declared: dict[str, Any]) -> None:
    form, parameters, said = fitted(schema(SHIPPED), declared, {"recipe": OWN})
    assert form["properties"]["recipe"]["enum"] == [SHIPPED, OWN]
    assert form["properties"]["recipe"]["default"] == SHIPPED
    assert parameters == {"recipe": OWN}
    assert said == [f"its recipe {OWN} is no longer there: choose another in the UI"]
