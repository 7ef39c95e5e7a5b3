"""What people write as settings: recipes, `--set`, studies, rubrics, and the run forms of the UI."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

from pydantic import ValidationError

from data.errors import VidloopError
from data.resources import shipped
from data.settings import key_of
from data.yaml_text import parse_yaml
from flows.config.load import check, dump, load_recipe
from flows.config.recipe import Recipe
from flows.rounds.forms import overrides_of
from rewards.judge.rubric import Rubric, load_rubric
from studies.recipe import Study, load_study
from tests.fuzz.target import Target, file_of

_YAML = (
    "&a ", "*a", "!!int ", "!!str ", "!!float ", "!!binary ", "<<: ", "? ", "- ", ": ", "{", "}", "[", "]", "|\n", ">\n",
    "---\n", "...\n", "%YAML 1.1\n", "# ", "0x", "0o", "1e400", ".inf", ".nan", "null", "~", "true", "'", '"', "\\x00",
    "\\ud800", "\ufeff",
)  # fmt: skip
# Small, so that an option is what most of the time goes to.
_RECIPE = b"{name: fuzz, model: {family: wan, path: nowhere}, feedback: flow}\n"


def _keys(model: type) -> tuple[str, ...]:
    return tuple(key_of(model, name) for name in model.model_fields)


def _recipe(data: bytes) -> None:
    with file_of(data, "recipe.yaml") as path:
        recipe = load_recipe(str(path))
    # What it means survives being written down.
    assert check(Recipe, parse_yaml(dump(recipe), "again"), "again") == recipe


def _recipes() -> Iterator[bytes]:
    files = shipped("recipes").values()
    yield from (file.read_bytes() for file in files if not file.name.startswith("study-"))
    yield _RECIPE


def _option(data: bytes) -> None:
    with file_of(_RECIPE, "recipe.yaml") as path:
        # An option of a command holds every byte but NUL.
        load_recipe(str(path), [os.fsdecode(line) for line in data.replace(b"\0", b"").split(b"\n")[:8]])


def _options() -> Iterator[bytes]:
    yield b"seed=3\nfinetune.steps=100\nname=a name: # with signs"
    yield b"curate={threshold: 0.5, accept_fraction: 0.25}"
    yield b"rewards={a: {kind: flow}, b: {kind: composite, of: {a: 1}}}\nfeedback=b"
    yield b"policy={best_of: 4, from: champion}"
    yield b"evaluate.baselines=[{best_of: 2, from: base}]\ngenerate.prompt_ids=[p1, p2]"
    yield b"judge.rubric=rewards/judge/rubrics/physics.yaml\nrewards.flow.model=x"
    yield b"gate.limits.motion.lowest=0.5\nimprove.error=0.1"


def _study(data: bytes) -> None:
    with file_of(data, "study.yaml") as path:
        load_study(str(path))


def _rubric(data: bytes) -> None:
    with file_of(data, "rubric.yaml") as path:
        rubric: Rubric = load_rubric(str(path))
    for asked in rubric.asked:
        rubric.part_digest(asked)


def _form(data: bytes) -> None:
    try:
        given = json.loads(data)
    except (ValueError, RecursionError):
        return  # the server's own parser stands before the form
    if isinstance(given, dict):
        with file_of(_RECIPE, "recipe.yaml") as path:
            load_recipe(str(path), overrides_of(given))


def _forms() -> Iterator[bytes]:
    yield b'{"seed": 7, "generate": {"clips_per_prompt": 4}, "finetune": {"steps": 10}, "overrides": ["name=x"]}'
    yield b'{"improve": {"rounds": 3, "data": "all"}, "night": {"window": 3}, "curate": {"threshold": 0.5}}'
    yield b'{"score": {}, "evaluate": {"prompts": "heldout"}, "seed": null, "overrides": null}'


TARGETS = (
    Target("recipe", _recipe, _recipes, words=(*_YAML, *_keys(Recipe)), most=8192, trees=True, share=0),
    Target("set", _option, _options, words=(*_YAML, *_keys(Recipe), "=", "."), most=1024, share=0),
    Target("study", _study, lambda: [one.read_bytes() for one in shipped("recipes").values() if "study-" in one.name],
           words=(*_YAML, *_keys(Study)), most=8192, trees=True, share=0),
    Target("rubric", _rubric, lambda: [one.read_bytes() for one in shipped("rubrics").values()],
           words=(*_YAML, *_keys(Rubric)), most=8192, trees=True, share=0),
    Target("form", _form, _forms, refusals=(VidloopError, ValidationError),
           words=("generate", "finetune", "overrides", "null", "1e999", "NaN", '": "', "[[", "{"), most=1024, trees=True, share=0),
)  # fmt: skip
