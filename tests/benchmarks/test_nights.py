"""A series of nights, simulated with the gate's own functions: how often it promotes falsely."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.stats import binom

from benchmarks.nights import ERROR, likely, main, year
from models.gate.settings import GateSettings
from models.gate.verdict import Paired, decide


def test_thirty_nights_that_change_nothing_hold_the_budget_and_the_gate_alone_does_not() -> None:
    rng, years = np.random.default_rng(7), 300
    found = [year(20, 4, 4, "nothing", rng, nights=30) for _ in range(years)]
    assert sum(one.promoted > 0 for one in found) <= binom.ppf(0.999, years, ERROR)
    assert sum(one.gate > 0 for one in found) > years / 4


def test_prompts_that_wander_are_no_gain_however_many_clips_confirm() -> None:
    rng, years = np.random.default_rng(7), 1500
    found = [year(20, 4, 16, "wanders", rng, nights=30) for _ in range(years)]
    assert sum(one.promoted > 0 for one in found) <= binom.ppf(0.999, years, ERROR)


def test_all_nights_at_once_are_decided_as_the_gate_decides_each() -> None:
    rng, settings, names = np.random.default_rng(7), GateSettings(), tuple("abcdefghijkl")
    more = rng.integers(-2, 4, size=(300, len(names)))
    none = np.zeros(len(names))
    for confidence in (0.95, 0.999):
        gates = [
            decide(
                Paired("passes", none, one.astype(float), names, ("all",) * 12),
                [],
                settings,
                None,
                confidence,
            )
            for one in more
        ]
        yes = [night for night, gate in enumerate(gates) if gate.promoted]
        assert 0 < len(yes) < len(more)
        assert likely(more, confidence).tolist() == yes


def test_a_gain_is_found_and_more_clips_to_confirm_find_it_sooner() -> None:
    nights = {}
    for again in (4, 16):
        rng = np.random.default_rng(7)
        found = [year(60, 4, again, "gain", rng, nights=60).promoted or 61 for _ in range(60)]
        nights[again] = float(np.median(found))
    assert nights[16] < nights[4] < 60


def test_the_table_goes_between_its_markers(tmp_path: Path) -> None:
    page = tmp_path / "gate.md"
    first, last = (f"<!-- {place} of python -m benchmarks.nights -->" for place in ("begin", "end"))
    page.write_text(f"# Before\n\n{first}old{last}\nafter\n")
    main(["--years", "1", "--page", str(page)])
    told = page.read_text()
    assert told.startswith("# Before\n")
    assert told.endswith("-->\nafter\n")
    assert "old" not in told
    assert "| 120 x 4, 120 x 16 |" in told
