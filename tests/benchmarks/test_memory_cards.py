"""What is said about cards follows from the measured rows; the measuring itself, whole, on models of no size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import memory_cards
from benchmarks.harness import RESULTS
from benchmarks.memory_cards import clips, fits, settings_for, tables
from flows.config.load import load_recipe
from tests.tiny_round import ROOT


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


def said(text: str, recipe: str) -> list[str]:
    """What the second table says of a recipe, card by card."""
    line = next(line for line in text.splitlines() if line.startswith(f"| `{recipe}` |") and "--set" in line)
    return line.split("|")[2:-1]


def test_the_page_holds_the_tables_of_the_measured_rows() -> None:
    rows = json.loads((RESULTS / "memory-cards.json").read_text())["rows"]
    first, second = tables(rows).split("\n\n")
    page = (ROOT / "docs/cards.md").read_text()
    assert first in page
    assert second in page


def test_the_page_says_how_a_model_fits_or_what_it_would_take() -> None:
    small, middle, large = said(tables([SMALL, LARGE]), "large")
    assert "does not fit: the least measured is 50.0 GB" in small
    assert "generate.batch_size=11`" in middle
    assert "generate.batch_size=16`" in large
    text = tables([SMALL, LARGE, SQUEEZED])
    assert "| bfloat16, fp8 storage |" in text
    # fewer bits only where the whole weights do not fit
    small, middle, _ = said(text, "large")
    assert "generate.batch_size=1 --set model.quantise=fp8-storage --set finetune.compile=false`" in small
    assert "quantise" not in middle


def test_the_text_encoder_needs_no_room_beside_the_network() -> None:
    both = row("both", peaks=(12.0, 12.0, 12.0), weights=11.0, training=5.0)
    assert fits(both, 24)
    assert clips(both, 24) == 11  # (0.94 * 24 - 11) / 1


def test_two_experts_take_turns_where_both_would_leave_too_little_room() -> None:
    turns = row("two", peaks=(11.0, 32.0, 35.0), weights=30.0, training=50.0)
    turns["generation"] |= {"waiting on the host": 29.0, "seconds to the GPU": 4.2}
    # 58 of 80 GB: both stay, and a clip has (0.94 * 80 - 30 - 29) / 2 of what is left
    assert clips(turns, 80) == 8
    # 58 of 70 GB: one at a time, and more clips for it
    assert clips(turns, 70) == 16
    assert fits(turns, 60)
    assert not fits(turns, 24)


def test_what_the_page_says_of_two_experts_was_measured() -> None:
    rows = json.loads((RESULTS / "memory-cards.json").read_text())["rows"]
    two = [row["generation"] for row in rows if "waiting on the host" in row["generation"]]
    page = (ROOT / "docs/cards.md").read_text()
    assert " and ".join(f"{one['waiting on the host']:.1f} GB" for one in two) in page
    assert " and ".join(f"{one['seconds to the GPU']:.1f} s" for one in two) in page


def test_what_the_page_says_is_taken_by_the_recipe() -> None:
    rows = json.loads((RESULTS / "memory-cards.json").read_text())["rows"]
    assert rows
    for measured in rows:
        if fits(measured, 141):
            given = settings_for(measured, 141).removeprefix("--set ").split(" --set ")
            recipe = load_recipe(f"recipes/{measured['recipe']}.yaml", given)
            assert recipe.model.quantise == measured["quantise"]
            assert recipe.generate.batch_size == clips(measured, 141)


def test_rows_without_figures_make_no_claim() -> None:
    nothing = row("large", peaks=(1.0, 1.0, 1.0), weights=1.0, training=1.0) | {"training": None}
    assert tables([nothing]) == tables([])


@pytest.mark.slow
def test_every_recipe_is_measured_in_one_go_and_rows_stay_until_measured_again(tmp_path: Path) -> None:
    tiny = ["--tiny", "--device", "cpu", "--out", str(tmp_path)]
    memory_cards.main(tiny)
    found = memory_cards.main([*tiny, "--quantise", "fp8-storage", "--recipes", "ltx-video,wan2.2-t2v-a14b"])
    assert not [one["error"] for one in found["rows"] if "error" in one]
    measured = [(one["recipe"], one["quantise"]) for one in found["rows"]]
    assert sorted(measured) == sorted(
        [*((name, "none") for name in memory_cards.MODELS), ("ltx-video", "fp8-storage"),
         ("wan2.2-t2v-a14b", "fp8-storage")]
    )  # fmt: skip
    assert all(one["training"]["seconds of the second step, eager"] >= 0 for one in found["rows"])
    two = [one for one in found["rows"] if "seconds to the GPU" in one["generation"]]
    assert {(one["recipe"], one["quantise"]) for one in two} == {
        ("wan2.2-t2v-a14b", "none"), ("wan2.2-t2v-a14b", "fp8-storage"),
    }  # fmt: skip
    assert json.loads((tmp_path / "memory-cards.json").read_text()) == found
    # a CPU counts no memory: no row of it makes a claim about a card
    assert tables(found["rows"]) == tables([])
