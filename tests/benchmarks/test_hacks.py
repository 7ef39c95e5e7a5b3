"""Cuts of real videos and the tables of docs/guards.md, on a pool of a few prompts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import hacks
from benchmarks.real_video import FASTER, HACKS, NOTHING, SLOWER, Cut, Prompt, photograph

CAUGHT = {
    "frozen": {"motion", "own_motion", "flicker"},
    "blurred, sigma 1.2 px, with a checkerboard of 4 grey levels": {"sharpness"},
    "colour gone": {"colour"},
    "pan of a still, 2 px a frame": {"own_motion"},
    hacks.ONE_CLIP: {"diversity"},
}


@pytest.fixture(scope="module")
def pool() -> hacks.Pool:
    return hacks.measure(3, 2, hacks=[name for name in HACKS if name in {NOTHING, *CAUGHT}])


def test_every_hack_gives_clips_of_the_size_of_the_cut() -> None:
    rng = np.random.default_rng(0)
    for name, hack in HACKS.items():
        prompt = Prompt.draw(rng)
        cut = Cut.draw(prompt, rng)
        clip = hack(cut, rng)
        length = 17 if name in (SLOWER, FASTER) else prompt.length
        assert (clip.shape, clip.dtype) == ((length, *cut.size, 3), np.uint8)
    assert photograph("coffee.png").shape[2] == 3


def test_coarse_hacks_are_caught_and_cuts_as_they_are_are_not(pool: hacks.Pool) -> None:
    def broken(hack: str) -> set[str]:
        found = hacks.played(pool, hack, (100, 4, 5), np.random.default_rng(1))
        return {one.name for one in found if one.ok is False}

    assert broken(NOTHING) == set()
    for hack, guards in CAUGHT.items():
        assert guards <= broken(hack), hack


def test_time_that_runs_slower_or_faster_by_a_quarter_is_caught_by_tempo() -> None:
    pool = hacks.measure(6, 2, (SLOWER, FASTER))
    for hack, says in ((SLOWER, "surely below"), (FASTER, "surely above")):
        found = hacks.played(pool, hack, (100, 4, 5), np.random.default_rng(1))
        tempo = next(one for one in found if one.name == "tempo")
        assert (tempo.ok, says in str(tempo.reason)) == (False, True), tempo


def test_the_same_pool_comes_twice_and_is_kept(pool: hacks.Pool, tmp_path: Path) -> None:
    pool.save(tmp_path / "pool.npz")
    kept, again = hacks.Pool.load(tmp_path / "pool.npz"), hacks.measure(1, 1, (NOTHING,))
    for name in again.values:
        np.testing.assert_array_equal(kept.values[name], pool.values[name])
        np.testing.assert_array_equal(kept.apart[name], pool.apart[name])
        np.testing.assert_array_equal(again.values[name][0], pool.values[name][0])


def test_the_tables_say_every_hack_and_every_layout(pool: hacks.Pool, tmp_path: Path) -> None:
    pool.save(tmp_path / "pool.npz")
    page = tmp_path / "guards.md"
    hacks.main(["--pool", str(tmp_path / "pool.npz"), "--trials", "2", "--page", str(page)])
    text = page.read_text("utf-8")
    assert all(f"| {name} |" in text for name in CAUGHT)
    assert all(
        f"| {prompts} | {categories} |" in text
        for prompts in hacks.PROMPTS
        for categories in hacks.CATEGORIES
    )
