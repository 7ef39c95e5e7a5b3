"""verdict.sql is the gate's arithmetic: on rows of every kind it gives what the gate gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest

from data.records import Evaluation, to_table
from flows.reporting.bundle import verdict
from models.gate.settings import DIVERSITY
from tasks.summary import RoundSummary

HIGH = {"flicker": {"high": 1.3}}
HOSTILE = 'it\'s "heldout"; --'
Value = Callable[[np.random.Generator, int, str], float | None]


def rows(
    prompts: int, clips: int, values: dict[str, tuple[Value, Value]], categories: int
) -> list[Evaluation]:
    """Evaluations of two policies; a value is a function of chance, the number of the prompt and the policy."""
    rng = np.random.default_rng(prompts)
    found = []
    for prompt in range(prompts):
        for policy, at in (("before", 0), ("after", 1)):
            for metric, sides in values.items():
                for seed in range(1 if metric == DIVERSITY else clips):
                    value = sides[at](rng, prompt, policy)
                    found.append(
                        Evaluation(policy, f"p{prompt}", f"kind {prompt % categories}'s", HOSTILE, seed, metric, value,
                                   "failed" if value is None else "ok", "no frames" if value is None else None, "c")
                    )  # fmt: skip
    return found


def summary(guards: list[str]) -> RoundSummary:
    said = {"before": None, "after": None}
    return RoundSummary.model_validate(
        {
            "round": "r", "recipe": {"gate": {"confidence": 0.9}}, "recipe_name": "r",
            "feedback": "x", "objective": "dpo", "policy_before": "before", "policy_after": "after", "stages": {},
            "primary": {"metric": "physics", "delta": None, "ci_low": None, "ci_high": None, "n": 0} | said,
            "guards": {name: {"ok": None, "low": 0.7} | HIGH.get(name, {}) | said for name in guards}, "verdict": "", "promoted": False,
        }
    )  # fmt: skip


def yes(share: float) -> Value:
    return lambda rng, prompt, policy: float(rng.random() < share)


def graded(low: float, high: float) -> Value:
    return lambda rng, prompt, policy: float(rng.uniform(low, high))


def failing(value: Value) -> Value:
    return lambda rng, prompt, policy: None if rng.random() < 0.3 else value(rng, prompt, policy)


def always(value: float) -> Value:
    return lambda rng, prompt, policy: value


def assert_near(found: Sequence[float | None], wanted: Sequence[float | None]) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert one == (other if other is None else pytest.approx(other, rel=1e-9, abs=1e-12))


ROWS = {
    "a gain": rows(24, 4, {"physics": (yes(0.4), yes(0.8)), "motion": (graded(1, 2), graded(1, 2)),
                           "flicker": (graded(1, 2), graded(1, 2)), "diversity": (graded(1, 2), graded(1, 2))}, 3),
    "measurements that failed": rows(
        15, 3, {"physics": (failing(yes(0.4)), failing(yes(0.6))), "motion": (failing(graded(1, 2)), failing(graded(1, 2)))}, 2),
    "guards that break": rows(12, 2, {"physics": (graded(0, 1), graded(0, 1)), "motion": (graded(1, 2), graded(0.1, 0.2)),
                                      "flicker": (graded(1, 2), graded(5, 6))}, 2),
    "a guard that falls to nothing": rows(8, 2, {"physics": (yes(0.2), yes(0.9)), "motion": (graded(1, 2), always(0.0))}, 1),
    "a guard that was nothing": rows(8, 2, {"physics": (yes(0.2), yes(0.9)), "motion": (always(0.0), graded(1, 2))}, 1),
    "all agree": rows(6, 2, {"physics": (always(0.0), always(1.0)), "motion": (graded(1, 2), graded(1, 2))}, 1),
    "no clip differs": rows(6, 2, {"physics": (always(1.0), always(1.0)), "motion": (graded(1, 2), graded(1, 2))}, 1),
    "three prompts": rows(3, 4, {"physics": (yes(0.1), yes(0.9)), "motion": (graded(1, 2), graded(1, 2))}, 1),
    "small categories": rows(10, 1, {"physics": (yes(0.1), yes(0.9)), "motion": (graded(1, 2), graded(1, 2))}, 4),
    "no guard": rows(10, 2, {"physics": (graded(0, 1), graded(0.5, 1.5))}, 1),
}  # fmt: skip


@pytest.mark.parametrize("what", ROWS)
def test_the_query_gives_what_the_gate_gives(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = ROWS[what]
    guards = sorted({row.metric for row in held} - {"physics"})
    asked = verdict.question(summary(guards), held, HOSTILE)
    gate = asked.decide()
    (tmp_path / "tables").mkdir()
    pq.write_table(to_table("evaluations", held), tmp_path / "tables/evaluations.parquet")
    monkeypatch.chdir(tmp_path)
    answer = duckdb.sql(verdict.sql(asked))
    found = {
        (row[1] or row[0], row[2]): dict(zip(answer.columns, row, strict=True)) for row in answer.fetchall()
    }

    primary = found.pop(("physics", "overall"))
    wanted = (gate.primary.delta, gate.primary.ci_low, gate.primary.ci_high, gate.primary.prompts)
    assert_near([primary[name] for name in ("value", "low", "high", "prompts")], wanted)
    assert found.pop(("promoted", "all of these"))["holds"] == gate.promoted
    for name, guard in gate.guards.items():
        own = {place: row for (metric, place), row in found.items() if metric == name}
        if guard.ratio is None:
            assert own == {}
            continue
        told = [own["overall"][column] for column in ("value", "low", "high")]
        assert_near(told, (guard.ratio, guard.ci_low, guard.ci_high))
        assert {place for place, row in own.items() if not row["holds"]} == set(guard.broken_in)


def test_the_rows_hold_what_they_are_named_for() -> None:
    gates = {}
    for what, held in ROWS.items():
        guards = sorted({row.metric for row in held} - {"physics"})
        gates[what] = verdict.question(summary(guards), held, HOSTILE).decide()
    assert gates["a gain"].promoted
    assert gates["measurements that failed"].primary.excluded > 0
    assert gates["guards that break"].guards["motion"].broken_in == ("overall", "kind 0's", "kind 1's")
    assert gates["guards that break"].guards["flicker"].broken_in == ("overall", "kind 0's", "kind 1's")
    assert gates["all agree"].primary.ci_low is not None
    assert gates["three prompts"].primary.no_interval
    assert gates["small categories"].guards["motion"].unseen
