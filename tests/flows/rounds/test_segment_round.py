"""A tiny round whose judge answers by segments: its pairs are compared in those that differ."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from data.errors import UserError
from data.store import Store
from tests.rewards.judge.conftest import write_rubric  # noqa: F401  (a fixture)
from tests.tiny_round import Tiny, cached, play
from tests.tiny_vlm import tiny_vlm  # noqa: F401  (a fixture)


@pytest.fixture
def judged(tiny: Tiny, tiny_vlm: Path, write_rubric: Callable[..., str]) -> Tiny:
    """Clips of nine frames at eight a second, judged in two pieces of four and five frames."""
    recipe: dict[str, Any] = yaml.safe_load(tiny.recipe.read_text())
    frames = {"count": 4, "segment_seconds": 0.5, "segments": "mean"}
    recipe |= {
        "rewards": ["physics", "sharpness", "judge"],
        "feedback": "judge",
        "judge": {"backend": "local", "model": str(tiny_vlm), "rubric": write_rubric(frames=frames)},
    }
    tiny.recipe.write_text(yaml.safe_dump(recipe))
    return tiny


def unit(tiny: Tiny, stage: str, summary: dict[str, Any]) -> Any:
    manifest = Store.open(tiny.store).manifest(summary["stages"][stage]["key"])
    assert manifest is not None
    return manifest


@pytest.mark.slow
def test_pairs_are_compared_in_the_segments_that_differ(judged: Tiny) -> None:
    summary = play(judged, "finetune.steps=2")
    store = Store.open(judged.store)
    scores = [row for one in store.manifests("score") for row in store.read(one.key, "scores")]
    told = {row.clip_id: json.loads(row.detail)["segments"] for row in scores if row.reward == "judge"}
    assert all([one[:2] for one in cut] == [[0.0, 0.5], [0.5, 1.125]] for cut in told.values())

    curated = unit(judged, "curate", summary)
    pairs = store.read(curated.key, "pairs")
    kept = {(row.chosen, row.rejected, row.start_s) for row in store.read(curated.key, "pair_segments")}
    assert pairs
    shaping = curated.info["shaping"]

    def label(value: float) -> float:
        return min(1.0, max(0.0, shaping["eta"] * (value - shaping["gamma"])))

    assert kept == {
        (pair.chosen, pair.rejected, start)
        for pair in pairs
        for (start, _, won), (_, _, lost) in zip(told[pair.chosen], told[pair.rejected], strict=True)
        if label(won) > label(lost)
    }
    assert {(pair.chosen, pair.rejected) for pair in pairs} == {row[:2] for row in kept}
    # The comparison says something: not every pair keeps both of its pieces.
    assert len(kept) < 2 * len(pairs)

    trained = unit(judged, "finetune", summary)
    assert trained.info["gap_at_start"] == 0.0
    again = play(judged, "finetune.steps=2")
    assert all(done == total for done, total in cached(again).values())

    whole = play(judged, "finetune.steps=2", "curate.segments=ignore")
    assert whole["stages"]["score"]["cached_shards"] == whole["stages"]["score"]["shards"]
    assert store.read(unit(judged, "curate", whole).key, "pair_segments") == []
    assert whole["policy_after"] != summary["policy_after"]

    stored = ("finetune.fixed_noise_samples=2", "finetune.reference_errors=stored", "finetune.steps=2")
    with pytest.raises(UserError, match=r"reference_errors: inline, or curate\.segments: ignore"):
        play(judged, *stored)
    assert not store.manifests("reference")
