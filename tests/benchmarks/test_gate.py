"""The tables of docs/gate.md: made small, and put between the page's marks alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.gate import gains, main, measurements


def test_the_tables_take_the_place_of_those_before(tmp_path: Path) -> None:
    page = tmp_path / "gate.md"
    main(["--trials", "4", "--page", str(page)])
    text = page.read_text("utf-8")
    page.write_text(f"# Head\n{text}\ntail\n", "utf-8")
    main(["--trials", "4", "--page", str(page)])
    assert page.read_text("utf-8") == f"# Head\n{text}\ntail\n"
    assert text.count("| 200 |") == 2
    assert "| 5 x 20 prompts, 4 clips |" in text


def test_the_true_gain_and_the_true_ratio_are_what_they_are_said_to_be() -> None:
    rng = np.random.default_rng(0)
    for graded in (False, True):
        assert abs(gains(graded, 20_000, 4, 0.4, 0.15, rng).mean() - 0.15) < 0.01
    found = measurements("motion", (5, 4000, 4), 0.7, rng)
    assert abs(found.after.mean() / found.before.mean() - 0.7) < 0.03
