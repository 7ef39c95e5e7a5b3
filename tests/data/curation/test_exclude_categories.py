"""A category that is left out does not teach; the others are curated as if it had never been made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from data.curation import CurateSettings, curate
from data.records import Clip, Score
from data.store import Manifest, Store


@pytest.fixture
def curated(
    store: Store,
    commit: Callable[..., Manifest],
    make_clip: Callable[..., Clip],
    make_score: Callable[..., Score],
) -> Callable[..., Any]:
    """Two categories of four prompts each, five clips a prompt, some good."""

    def run(categories: int = 2, **settings: Any) -> Any:
        rows = [
            make_clip(f"c{i:02d}", prompt_id=f"p{i // 5}", category=f"k{i // 20}")
            for i in range(20 * categories)
        ]
        clips = commit("generate", name=str(categories), clips=rows)
        scores = commit(
            "score",
            name=str(categories),
            scores=[make_score(row.clip_id, i % 5 / 4) for i, row in enumerate(rows)],
        )
        return curate(store, [clips.key], [scores.key], CurateSettings(feedback="physics", **settings))

    return run


@pytest.mark.parametrize("kind", ["binary", "graded"])
def test_its_clips_form_neither_examples_nor_pairs(kind: str, curated: Callable[..., Any]) -> None:
    found = curated(kind=kind, exclude_categories=("k1",))
    alone = curated(categories=1, kind=kind)
    assert {row.category for row in found.examples} == {"k0"}
    assert [(row.clip_id, row.reward, row.accepted) for row in found.examples] == [
        (row.clip_id, row.reward, row.accepted) for row in alone.examples
    ]
    assert [(row.chosen, row.rejected) for row in found.pairs] == [
        (row.chosen, row.rejected) for row in alone.pairs
    ]
    assert found.report["clips"]["total"] == 20
    assert found.report["shaping"]["exclude_categories"] == ["k1"]
    assert len(curated(kind=kind).examples) == 40


def test_nothing_excluded_is_no_part_of_a_fingerprint_and_order_none_either() -> None:
    assert CurateSettings(feedback="physics").fingerprint() == {}
    some = CurateSettings(feedback="physics", exclude_categories=("b", "a", "b"))
    assert some.fingerprint() == {"exclude_categories": ["a", "b"]}
