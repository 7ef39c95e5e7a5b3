"""The table of few labels: made small, of clips of which the truth is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.people import main, read_pool, studied
from data.errors import DataError
from data.store import Store


@pytest.fixture
def known(
    store: Store, commit: Callable[..., Any], make_clip: Callable[..., Any], make_score: Callable[..., Any]
) -> Store:
    """60 prompts with 8 clips, of which the judge says the truth of 9 in 10."""
    rng = np.random.default_rng(0)
    truth = rng.random((60, 8)) < rng.beta(2, 2, (60, 1))
    judge = np.where(rng.random((60, 8)) < 0.9, truth, ~truth) * 0.9 + 0.05
    ids = [[f"p{p:02}-{c}" for c in range(8)] for p in range(60)]
    commit("generate", clips=[make_clip(one, prompt_id=one[:3]) for some in ids for one in some])
    for reward, values in (("judge", judge), ("physics", truth)):
        pairs = zip(np.ravel(ids).tolist(), np.ravel(values).astype(float).tolist(), strict=True)
        commit("score", reward, scores=[make_score(clip, value, reward) for clip, value in pairs])
    return store


def test_the_table_takes_the_place_of_the_one_before(known: Store, tmp_path: Path) -> None:
    page = tmp_path / "labels.md"
    asked = ["--store", str(known.root), "--studies", "4", "--page", str(page)]
    main(asked)
    text = page.read_text("utf-8")
    page.write_text(f"# Head\n{text}\ntail\n", "utf-8")
    main(asked)
    assert page.read_text("utf-8") == f"# Head\n{text}\ntail\n"
    for what in ("rate", "rate, uncertain clips first", "gain, half of the labels each"):
        assert text.count(f"| {what} | 200 |") == 4
    assert "60 prompts with 8 clips each, 4 studies a line" in text


def test_intervals_hold_their_level_and_a_worse_judge_helps_less(known: Store) -> None:
    pool = read_pool(known)
    assert pool.accuracy == pytest.approx(0.9, abs=0.03)
    good = studied(pool, 100, 200, 0, "lot")
    poor = studied(pool.worse(1.0, np.random.default_rng(1)), 100, 200, 0, "lot")
    for found in (good, poor, studied(pool, 100, 200, 0, "doubt"), studied(pool, 100, 200, 0, "gain")):
        assert 0.91 <= found.holds <= 0.99
    assert good.ratio < 0.85 < poor.ratio < 1.01
    assert good.worth > 130 > poor.worth


def test_a_store_without_judgements_is_refused(store: Store) -> None:
    with pytest.raises(DataError, match="`vidloop calibrate` scores them"):
        read_pool(store)
