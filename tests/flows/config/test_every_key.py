"""No setting is accepted and dropped: each key, changed, is seen in what a round is opened as, or costs only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel

from data.explain import part_at
from data.store import Store
from flows.config.load import load_recipe
from flows.config.recipe import Recipe
from flows.config.resolve import open_round
from tasks.context import RoundContext
from tests.tiny_round import Tiny

# Parts that a component computes with; finetune and rewards are in test_every_key_counts, `improve` is not a round's.
PARTS = ("model", "generate", "shaping", "curate", "gate")
# What names something that must be there: tests of resolve and of campaigns change these.
NAMES = (
    "model.family",
    "model.path",
    "model.revision",
    "generate.prompts",
    "generate.prompt_ids",
    "curate.include_rounds",
)
# Legal only together with something else.
TOGETHER = {
    "model.device": ["model.device=cuda:0"],
    "model.compile": ["model.compile=true"],
    "generate.guidance_2": [],
    "generate.flow_shift": ["generate.flow_shift=7.0"],
    "generate.frames": ["generate.frames=17"],
    "generate.height": ["generate.height=64"],
    "generate.width": ["generate.width=64"],
    "curate.weight": ["curate.weight=exp"],
    "gate.drift": ["gate.drift={motion: 0.9}"],
    "shaping.kind": ["shaping.kind=binary", "shaping.threshold=0.5"],
}


def keys() -> Iterator[tuple[str, Any]]:
    for part in PARTS:
        model = part_at(Recipe, [part])
        assert model is not None
        yield from _keys(model, f"{part}.")


def _keys(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        inner = part_at(model, [name])
        if inner is not None:
            yield from _keys(inner, f"{prefix}{name}.")
        elif get_origin(field.annotation) is not Literal or len(get_args(field.annotation)) > 1:
            yield f"{prefix}{name}", field


def another(field: Any, now: Any) -> str:
    """A legal value that is not the present one, as YAML."""
    kinds = (
        get_args(field.annotation)
        if get_origin(field.annotation) not in (Literal, tuple)
        else (field.annotation,)
    )
    for kind in kinds or (field.annotation,):
        if get_origin(kind) is Literal:
            other = next((one for one in get_args(kind) if one != now), None)
            if other is not None:
                return str(other)
        if kind is bool:
            return "false" if now else "true"
        if kind in (int, float):
            return str(_number(field, kind, now))
        if kind is str:
            return "another"
        if get_origin(kind) is tuple:
            return "[another]"
    raise AssertionError(f"no other value of {field}")


def _number(field: Any, kind: type, now: Any) -> Any:
    for value in (1, 2, 3, 0.25, 0.5, 0.75, 150, 0.9, 1.5):
        if kind is int and value != int(value):
            continue
        bounds = field.metadata
        fits = all(
            (getattr(b, "ge", None) is None or value >= b.ge)
            and (getattr(b, "gt", None) is None or value > b.gt)
            and (getattr(b, "le", None) is None or value <= b.le)
            and (getattr(b, "lt", None) is None or value < b.lt)
            for b in bounds
        )
        if fits and value != now:
            return kind(value)
    raise AssertionError(f"no other number of {field}")


def seen(context: RoundContext) -> dict[str, Any]:
    """What the stages compute with, without the recipe as it is shown."""
    return {name: value for name, value in vars(context).items() if name not in ("recipe", "run_id")}


def opened(tiny: Tiny, *overrides: str) -> RoundContext:
    return open_round(load_recipe(str(tiny.recipe), overrides), Store.open(tiny.store, create=True), "run")


@pytest.mark.parametrize("key", [key for key, _ in keys() if key not in NAMES])
def test_a_changed_key_is_seen_by_the_stages(tiny: Tiny, key: str) -> None:
    field = dict(keys())[key]
    before = opened(tiny)
    if key.startswith("generate.step_cache."):
        first = opened(tiny, "generate.step_cache={}")
        value = another(field, field.default)
        assert seen(opened(tiny, "generate.step_cache={}", f"{key}={value}")) != seen(first)
        return
    if key.startswith("gate.limits."):
        limit = f"gate.limits.motion.{key.rpartition('.')[2]}={another(field, field.default)}"
        assert opened(tiny, limit).evaluate.within != before.evaluate.within
        return
    changes = TOGETHER.get(key)
    if changes is None:
        now: Any = load_recipe(str(tiny.recipe))
        for name in key.split("."):
            now = getattr(now, name)
        changes = [f"{key}={another(field, now)}"]
    if not changes:
        pytest.skip("of models of two experts: tests/tasks/test_experts.py")
    assert seen(opened(tiny, *changes)) != seen(before), f"{key} is accepted and dropped"
