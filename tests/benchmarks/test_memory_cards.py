"""What is said about cards follows from the measured rows; the measuring itself, whole, on models of no size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import memory_cards
from benchmarks.cards_page import clips, fits, page


def row(
    recipe: str, *, peaks: tuple[float, float, float], weights: float, training: float, **more: Any
) -> Any:
    encoding, denoising, decoding = peaks
    return {
        "recipe": recipe, "clip": "480x832x33", "quantise": "none", "dtype": "bfloat16", "device": "a GPU",
        "generation": {"encoding": encoding, "denoising": denoising, "decoding": decoding, "weights": weights,
                       "peak": max(peaks)},
        "training": {"peak": training}, **more,
    }  # fmt: skip


SMALL = row("small", peaks=(11.0, 5.0, 6.0), weights=3.0, training=15.0)
LARGE = row("large", peaks=(11.0, 33.0, 34.0), weights=29.0, training=50.0)
SQUEEZED = row("large", peaks=(11.0, 19.0, 20.0), weights=15.0, training=21.0, quantise="fp8-storage")


def test_a_card_has_less_than_it_is_sold_as() -> None:
    assert fits(SMALL, 24)
    assert not fits(row("edge", peaks=(1.0, 23.0, 1.0), weights=1.0, training=1.0), 24)
    assert not fits(row("edge", peaks=(1.0, 1.0, 1.0), weights=1.0, training=23.0), 24)
    assert fits(row("edge", peaks=(1.0, 22.5, 1.0), weights=1.0, training=1.0), 24)


def test_the_batch_is_what_one_clip_leaves_room_for() -> None:
    assert clips(SMALL, 24) == 9  # (0.94 * 24 - 3) / 2
    assert clips(LARGE, 24) == 0
    assert clips(LARGE, 80) == 11
    assert clips(SMALL, 141) == 16


def test_the_page_says_how_a_model_fits_or_what_it_would_take() -> None:
    text = page([SMALL, LARGE, SQUEEZED])
    said = next(line for line in text.splitlines() if line.startswith("| `large` |") and "--set" in line)
    small, middle, large = said.split("|")[2:5]
    # No recipe can ask for quantised weights, so what they would fit is no answer.
    assert "does not fit: the least measured is 50.0 GB" in small
    assert "generate.batch_size=11`" in middle
    assert "generate.batch_size=16`" in large
    assert "quantise" not in text
    assert "on a GPU" in text


def test_the_text_encoder_comes_beside_the_network() -> None:
    both = row("both", peaks=(12.0, 12.0, 12.0), weights=11.0, training=5.0)
    assert not fits(both, 24)
    assert clips(both, 24) == 0


def test_without_figures_the_page_says_so() -> None:
    nothing = row("large", peaks=(1.0, 1.0, 1.0), weights=1.0, training=1.0) | {"training": None}
    for rows in ([], [nothing]):
        assert "Nothing has been measured yet" in page(rows)


@pytest.mark.slow
def test_every_recipe_is_measured_in_one_go_and_rows_stay_until_measured_again(tmp_path: Path) -> None:
    tiny = ["--tiny", "--device", "cpu", "--out", str(tmp_path), "--docs", str(tmp_path)]
    memory_cards.main(tiny)
    found = memory_cards.main([*tiny, "--quantise", "fp8-storage", "--recipes", "ltx-video,cogvideox-5b"])
    assert not [one["error"] for one in found["rows"] if "error" in one]
    measured = [(one["recipe"], one["quantise"]) for one in found["rows"]]
    assert sorted(measured) == sorted(
        [*((name, "none") for name in memory_cards.MODELS), ("ltx-video", "fp8-storage"),
         ("cogvideox-5b", "fp8-storage")]
    )  # fmt: skip
    assert all(one["training"]["seconds of the second step, eager"] >= 0 for one in found["rows"])
    assert json.loads((tmp_path / "memory-cards.json").read_text()) == found
    # a CPU counts no memory: no row of it makes a claim about a card
    memory_cards.main([*tiny, "--page"])
    assert "Nothing has been measured yet" in (tmp_path / "cards.md").read_text()
