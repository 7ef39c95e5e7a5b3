"""The miniature comes in by entry points: without it the library is whole, and another plug-in may do as it does."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny_round import ROOT


def python(code: str, cwd: Path, *path: Path) -> str:
    """What `code` prints with these folders on PYTHONPATH; of an error, its last line."""
    places = os.pathsep.join(map(str, path))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env={**os.environ, "PYTHONPATH": places}, capture_output=True, text=True
    )  # fmt: skip
    return done.stdout.strip() if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree without the miniature, and without its entry points."""
    folder = tmp_path_factory.mktemp("library")
    for name in ("data", "models", "rewards", "tasks", "flows", "recipes"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    declared = (ROOT / "pyproject.toml").read_text("utf-8")
    kept = re.sub(r'^\w+ = "(miniature|studies)[^\n]*\n', "", declared, flags=re.MULTILINE)
    (folder / "pyproject.toml").write_text(kept)
    return folder


def test_without_the_miniature_real_recipes_are_read(library: Path, tmp_path: Path) -> None:
    code = (
        "from data.prompts import prompt_sets; from flows.config.load import load_recipe\n"
        "from rewards import reward_kinds\n"
        "recipe = load_recipe('wan2.1-1.3b-judge')\n"
        "print(*recipe.rewards, *prompt_sets(), 'physics' in reward_kinds())"
    )
    assert python(code, tmp_path, library) == "teacher examiner clip flow real-train real-heldout False"


def test_without_the_miniature_its_names_are_unknown(library: Path, tmp_path: Path) -> None:
    code = "from data.prompts import load_prompts; load_prompts('train')"
    assert "give a set (real-train, real-heldout)" in python(code, tmp_path, library)
    code = "from rewards import reward_kind; reward_kind('physics')"
    assert "there is no reward 'physics'" in python(code, tmp_path, library)


def plugin(folder: Path, group: str, target: str) -> Path:
    (folder / "pyproject.toml").write_text(
        f'[project]\nname = "lamp"\n\n[project.entry-points."vidloop.{group}"]\nlamp = "{target}"\n'
    )
    return folder


def test_prompt_sets_come_from_any_package_and_no_name_twice(tmp_path: Path) -> None:
    (tmp_path / "lamp.py").write_text(
        "from data.prompts import PromptSets\nfrom data.records import Prompt, prompt_id\n"
        "def load(name):\n    return [Prompt(prompt_id(name), name, '', '', name, 'lamp')]\n"
        "SETS = PromptSets(('lamps',), load)\nTRAIN = PromptSets(('train',), load)\n"
    )
    code = "from data.prompts import load_prompts; print(load_prompts('lamps')[0].text)"
    assert python(code, tmp_path, ROOT, plugin(tmp_path, "prompts", "lamp:SETS")) == "lamps"
    said = python(code, tmp_path, ROOT, plugin(tmp_path, "prompts", "lamp:TRAIN"))
    assert "brings a prompt set 'train', which there is already" in said


def test_recipes_come_from_any_package_and_no_name_twice(tmp_path: Path) -> None:
    recipes = tmp_path / "lamp" / "recipes"
    recipes.mkdir(parents=True)
    (tmp_path / "lamp" / "__init__.py").write_text("")
    text = (ROOT / "miniature/recipes/mini.yaml").read_text("utf-8").replace("name: mini ", "name: bright ")
    (recipes / "bright.yaml").write_text(text)
    where = plugin(tmp_path, "resources", "lamp")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code = "from flows.config.load import load_recipe; print(load_recipe('{}').name)"
    for name in ("bright", "recipes/bright.yaml", "lamp/recipes/bright.yaml"):
        assert python(code.format(name), elsewhere, ROOT, where) == "bright"
    (recipes / "mini.yaml").write_text(text)
    assert "recipes of one name" in python(code.format("mini"), elsewhere, ROOT, where)


def test_an_operators_folder_of_recipes_may_hold_a_copy_of_a_plug_ins(library: Path, tmp_path: Path) -> None:
    # docker-compose.yml mounts it where ours are.
    place = tmp_path / "installed"
    shutil.copytree(library, place, ignore=shutil.ignore_patterns("recipes"))
    for folder in (place, tmp_path / "lamp"):
        (folder / "recipes").mkdir(parents=True)
        (folder / "recipes" / "bright.yaml").write_text("name: bright\n")
    (place / "recipes" / "__init__.py").write_text("")
    (tmp_path / "lamp" / "__init__.py").write_text("")
    where = plugin(tmp_path, "resources", "lamp")
    code = "from data.resources import find, shipped; print({})"
    own = str(place / "recipes" / "bright.yaml")
    assert python(code.format("*shipped('recipes').values()"), tmp_path, place, where) == own
    assert python(code.format("find('recipes/bright.yaml')"), tmp_path, place, where) == own
