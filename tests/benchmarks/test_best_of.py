"""The comparison of best of N with a round, on the tiny recipe; sharpness chooses and examines."""

from __future__ import annotations

import json
import shutil

import pytest

from benchmarks import best_of
from tests.tiny_round import ROOT, Tiny, tiny, tiny_model

__all__ = ["tiny", "tiny_model"]


def test_the_page_holds_what_the_study_measured(tiny: Tiny) -> None:
    page, made = ROOT / "docs/best-of.md", tiny.folder / "page.md"
    shutil.copy(page, made)
    best_of.main(["--study", str(ROOT / "docs/study.json"), "--page", str(made)])
    assert made.read_text("utf-8") == page.read_text("utf-8")


@pytest.mark.slow
def test_every_way_stands_in_one_table_with_its_cost(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    results, page = tiny.folder / "best-of.json", tiny.folder / "page.md"
    page.write_text("before <!-- begin of python -m benchmarks.best_of -->old"
                    "<!-- end of python -m benchmarks.best_of --> after")  # fmt: skip
    best_of.main([
        "--store", str(tiny.store), "--recipe", str(tiny.recipe), "--by", "sharpness", "--seeds", "0", "1",
        "--sizes", "2", "3", "--after", "2", "--results", str(results), "--page", str(page),
        "--set", "evaluate.metric=sharpness", "--set", "evaluate.same_as_feedback=true",
    ])  # fmt: skip
    found = json.loads(results.read_text())
    base2, base3 = (found["arms"][f"base, best of {n} by sharpness"] for n in (2, 3))
    for two, three in zip(base2["seeds"], base3["seeds"], strict=True):
        assert three["delta"] >= two["delta"] >= 0
    pooled = base3["pooled"]
    assert pooled["n"] == 2 * 4
    assert pooled["delta"] == pytest.approx(sum(one["delta"] for one in base3["seeds"]) / 2)
    # 9 clips of 2 steps, twice for guidance; 6 steps of 4 pairs, each clip in four passes.
    assert found["round"] == {
        "clips": 9, "judgements": 9, "sampling_passes": 36, "training_passes": 6 * 4 * 2 * 4
    }  # fmt: skip
    said = page.read_text()
    assert said.startswith("before ")
    assert said.endswith(" after")
    assert "old" not in said
    ways = [line.split(" | ")[0].removeprefix("| ") for line in said.splitlines() if line.startswith("| ")]
    assert ways[1:] == ["base", *found["arms"]]
    assert "one round, best of 2 by sharpness" in ways
    (once,) = [line for line in said.splitlines() if line.startswith("| one round |")]
    assert once.endswith("| 4 | 228 | 29 clips |")  # of 8 passes more a clip, 228 are spent at the 29th
