"""Every recipe of a real model can be planned: on a tiny model of its class, with all else as it is shipped."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from data.prompts import load_prompts
from data.resources import find
from data.resources import shipped as files
from flows.cli import round as _commands  # noqa: F401  (importing it adds the commands)
from flows.cli.app import app
from flows.config.load import load_recipe
from flows.config.rewards import kind_of, same_weights
from rewards.judge.laws import said_laws
from rewards.judge.rubric import load_rubric
from tests.models.families.tiny import CASES

# recipe -> the tiny model of its class, and settings of it that are the tiny model's own
MODELS = {
    "wan2.1-1.3b": "wan",
    "wan2.1-1.3b-judge": "wan",
    "wan2.1-14b": "wan",
    "wan2.2-t2v-a14b": "wan2.2-a14b-high",
    "wan2.2-ti2v-5b": "wan2.2-ti2v",
    "cogvideox-2b": "cogvideox-2b",
    "cogvideox-5b": "cogvideox-5b",
    "ltx-video": "ltx",
}
REAL = sorted(
    file.stem
    for file in files("recipes").values()
    if file.parent.name == "recipes" and "mini" not in file.stem
)
SMALL = {
    "cogvideox-2b": ["generate.max_sequence_length=16"],
    "cogvideox-5b": ["generate.max_sequence_length=16"],
}


def examiner(name: str) -> Any:
    return load_recipe(f"recipes/{name}.yaml").reward("examiner")


def test_every_recipe_of_a_real_model_is_here() -> None:
    assert set(MODELS) == set(REAL)


@pytest.mark.parametrize("name", REAL)
def test_it_can_be_planned(name: str, tmp_path: Path) -> None:
    (case,) = (case for case in CASES if case.name == MODELS[name])
    case.save(tmp_path / "model")
    sets = [f"model.path={tmp_path / 'model'}", *SMALL.get(name, [])]
    words = ["plan", "--recipe", f"recipes/{name}.yaml", "--store", str(tmp_path / "store")]
    ended = CliRunner().invoke(app, [*words, *(word for one in sets for word in ("--set", one))])
    assert ended.exit_code == 0, ended.output
    assert re.search(r"evaluate +examiner, before and after: 400 clips of 100 real-heldout", ended.output)
    assert "generate  0 cached, 1600 to run" in ended.output


@pytest.mark.parametrize("name", REAL)
def test_its_settings_say_where_they_are_from(name: str) -> None:
    head = find(f"recipes/{name}.yaml").read_text("utf-8").partition("\nname:")[0]
    assert re.search(r"github\.com/[\w.-]+/[\w.-]+\s(?:# )?at [0-9a-f]{7}", head), head


@pytest.mark.parametrize("name", REAL)
def test_its_examiner_asks_by_law_and_what_teaches_has_other_weights_and_another_rubric(name: str) -> None:
    recipe, judge = load_recipe(f"recipes/{name}.yaml"), examiner(name)
    rubric = load_rubric(judge.rubric)
    assert rubric.name == "physics"
    said = said_laws(judge.laws, rubric)
    for prompts in (recipe.evaluate.prompts, recipe.generate.prompts):
        assert {prompt.prompt_id for prompt in load_prompts(prompts)} <= set(said)
    teacher = recipe.reward(recipe.teacher)
    assert not same_weights(teacher, judge)
    if kind_of(teacher) == "judge":
        assert load_rubric(teacher.rubric).name == "general"
