"""A tiny round that learns from a mixture whose bounds are measured on its own training clips."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import yaml

from data.errors import UserError
from data.lineage import parents
from data.records import Score
from data.store import Store
from flows.config.load import load_recipe
from flows.config.resolve import open_round
from tasks import score
from tasks.stages import plan_stage, run_stage
from tasks.units import Runner, StageResult
from tests.tiny_round import Tiny

MIXTURE: dict[str, Any] = {
    "rewards": ["composite", "physics", "sharpness", "flicker", "motion"],
    "feedback": "composite",
    "composite": {
        "components": {"sharpness": {"weight": 2.0}, "flicker": {"worst": 0.5, "best": 0.0}},
        "motion_floor": 1e-6,
    },
}


def with_recipe(tiny: Tiny, changes: dict[str, Any]) -> Tiny:
    recipe: dict[str, Any] = yaml.safe_load(tiny.recipe.read_text()) | changes
    tiny.recipe.write_text(yaml.safe_dump(recipe))
    return tiny


def scores(store: Store, reward: str) -> dict[str, Score]:
    return {
        row.clip_id: row
        for manifest in store.manifests("score")
        if manifest.question["reward"] == reward
        for row in store.read(manifest.key, "scores")
    }


def to_curation(tiny: Tiny, *overrides: str) -> dict[str, StageResult]:
    """The first three stages, and what each did."""
    recipe = load_recipe(str(tiny.recipe), overrides)
    context = open_round(recipe, Store.open(tiny.store, create=True), "run")
    return {stage: run_stage(stage, context, Runner()) for stage in ("generate", "score", "curate")}


def test_a_mixture_teaches_with_bounds_from_the_training_clips(tiny: Tiny) -> None:
    mixed = with_recipe(tiny, MIXTURE)
    context = open_round(load_recipe(str(mixed.recipe)), Store.open(mixed.store, create=True), "run")
    run_stage("generate", context, Runner())
    # Before the bounds are known, the plan says that more follows.
    assert plan_stage("score", context).more
    to_curation(mixed)
    planned = plan_stage("score", context)
    assert planned.whole
    rewards = {question["reward"] for unit, _ in planned.units for question in unit.questions}
    assert rewards == {"physics", "sharpness", "flicker", "motion", "composite"}

    store = Store.open(mixed.store)
    raw, found = scores(store, "sharpness"), scores(store, "composite")
    worst, best = np.percentile(np.array([raw[clip].value for clip in found]), [5, 95])
    assert len(found) == 9
    for clip, row in found.items():
        parts = json.loads(row.detail)["components"]
        sharpness = parts["sharpness"]
        assert sharpness["raw"] == raw[clip].value
        assert (sharpness["worst"], sharpness["best"]) == (pytest.approx(worst), pytest.approx(best))
        assert row.value == pytest.approx((2 * sharpness["normalised"] + parts["flicker"]["normalised"]) / 3)
    assert {row.reward_version for row in found.values()} == {
        score.measure(context, context.feedback).version
    }
    (curation,) = store.manifests("curate")
    mixtures = {m.key for m in store.manifests("score") if m.question["reward"] == "composite"}
    assert mixtures == set(parents(store, curation)) - {m.key for m in store.manifests("generate")}
    assert sum(row.accepted for row in store.read(curation.key, "examples")) > 0

    # The same again is all there; another weight scores the mixture alone.
    assert all(did.cached_shards == did.shards for did in to_curation(mixed).values())
    before = {manifest.key for manifest in store.manifests("score")}
    to_curation(mixed, "composite.components.sharpness.weight=1.0")
    added = [m.question["reward"] for m in store.manifests("score") if m.key not in before]
    assert added == ["composite"] * len(mixtures)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards": ["composite", "physics"]}, "composite needs the reward 'flicker'"),
        (
            {"rewards": ["composite", "physics", "sharpness", "flicker"]},
            "composite needs the reward 'motion'",
        ),
        ({"composite": {}}, "names no reward to mix"),
        ({"composite": {"components": {"sharpnes": {}}}}, "sharpness"),
        ({"composite": {"components": {"composite": {}}}}, "composite.components.composite"),
        ({"composite": {"components": {"sharpness": {"wieght": 1.0}}}}, "components.sharpness.weight"),
        ({"composite": {"components": {"sharpness": {"weight": 0.0}}}}, "greater than 0"),
        ({"composite": {"components": {"sharpness": {"worst": 1.0}}}}, "both worst and best, or neither"),
        ({"composite": {"components": {"sharpness": {"worst": 1.0, "best": 1.0}}}}, "they must differ"),
        ({"composite": {"components": {"physics": {}}}}, "not judged by its own teacher"),
        ({"evaluate": {"metric": "composite"}}, "metric"),
    ],
)
def test_a_recipe_that_cannot_mix_is_refused(tiny: Tiny, changes: dict[str, Any], message: str) -> None:
    mixed = with_recipe(tiny, MIXTURE | changes)
    with pytest.raises(UserError, match=message):
        load_recipe(str(mixed.recipe))
