from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from data.curation import CurateSettings, curate
from data.records import Clip, Score
from data.store import Manifest, Store

Commit = Callable[..., Manifest]


@pytest.fixture
def taught(
    store: Store, commit: Commit, make_clip: Callable[..., Clip], make_score: Callable[..., Score]
) -> Callable[..., dict[str, Any]]:
    """Examples by clip of 100 clips, half of them good, under some settings."""
    names = [f"c{i:03d}" for i in range(100)]
    clips = commit(
        "generate", clips=[make_clip(name, prompt_id=f"p{i % 10}") for i, name in enumerate(names)]
    )
    scores = commit("score", scores=[make_score(name, float(i % 2)) for i, name in enumerate(names)])

    def run(**settings: Any) -> dict[str, Any]:
        result = curate(store, [clips.key], [scores.key], CurateSettings(feedback="physics", **settings))
        return {row.clip_id: row for row in result.examples}

    return run


@pytest.mark.parametrize("kind", ["binary", "graded"])
@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_the_stated_share_is_taught_the_other_way_round(kind: str, share: float, taught: Any) -> None:
    clean, noisy = taught(kind=kind), taught(kind=kind, label_noise=share)
    flipped = [name for name in clean if clean[name].reward != noisy[name].reward]
    assert len(flipped) == round(100 * share)
    assert all(noisy[name].reward == 1 - clean[name].reward for name in flipped)
    if kind == "binary":
        assert all(noisy[name].accepted == (noisy[name].reward == 1) for name in noisy)


def test_the_seed_decides_which_and_a_larger_share_flips_the_same_and_more(taught: Any) -> None:
    clean = taught()

    def flipped(**settings: Any) -> set[str]:
        noisy = taught(**settings)
        return {name for name in clean if clean[name].reward != noisy[name].reward}

    assert flipped(label_noise=0.1) == flipped(label_noise=0.1)
    assert flipped(label_noise=0.1) < flipped(label_noise=0.3)
    assert flipped(label_noise=0.1, seed=1) != flipped(label_noise=0.1)


def test_no_noise_is_no_part_of_a_fingerprint() -> None:
    assert CurateSettings(feedback="physics").fingerprint() == {}
    assert CurateSettings(feedback="physics", label_noise=0.1).fingerprint() == {"label_noise": 0.1}


def test_more_than_half_is_refused() -> None:
    with pytest.raises(ValidationError, match="label_noise"):
        CurateSettings(feedback="physics", label_noise=0.6)
