"""Several seeds of one recipe: mean and deviation of the gain, and how many there are."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest
import typer.testing

import flows.cli.compare
from data.store import Store
from flows.cli.app import app
from flows.reporting.seeds import differences
from tests.tiny_round import Tiny, play

COMMANDS = (flows.cli.compare,)
GAINS = {0: 0.20, 1: 0.10, 2: 0.24, 3: 0.18}


def recipe(seed: int, **more: Any) -> dict[str, Any]:
    said = {"name": f"seed {seed}", "seed": seed, "workers": seed, "finetune": {"steps": 60}}
    rewards = {"examiner": {"kind": "judge", "model": "m", "concurrency": seed + 1}}
    return {**said, "model": {"path": "wan", "device": f"cuda:{seed}"}, "rewards": rewards, **more}


def write(store: Store, name: str, said: dict[str, Any], gain: float | None) -> None:
    known = {"before": 0.4, "after": 0.4 + gain, "ci_low": gain - 0.1, "ci_high": gain + 0.1} if gain is not None else {
        "before": None, "after": None, "ci_low": None, "ci_high": None, "reason": "no training data"}  # fmt: skip
    summary = {
        "round": name, "recipe": said, "recipe_name": "mini", "feedback": "judge", "objective": "dpo",
        "policy_before": "m0", "primary": {"metric": "physics", "delta": gain, "n": 8, **known}, "guards": {},
        "stages": {}, "verdict": "as it is", "promoted": gain is not None,
    }  # fmt: skip
    store.write_file(f"rounds/{name}/summary.json", json.dumps(summary).encode())


@pytest.fixture
def seeds(store: Store) -> Store:
    """Four seeds of one recipe, one of them played twice, and a round of another recipe."""
    write(store, "r0-old", recipe(0), 0.9)
    for seed, gain in GAINS.items():
        write(store, f"r{seed}", recipe(seed), gain)
    write(store, "r1-again", recipe(1), GAINS[1])
    write(store, "x9", recipe(9, finetune={"steps": 61}), 0.5)
    return store


def compare(store: Store, *arguments: str) -> typer.testing.Result:
    return typer.testing.CliRunner().invoke(app, ["compare", *arguments, "--store", str(store.root)])


@pytest.mark.parametrize("named", [["r0", "r1", "r2", "r3"], ["r3"]])
def test_four_seeds_give_mean_and_deviation(seeds: Store, named: list[str]) -> None:
    (seeds.root / "rounds/r0-old/summary.json").unlink()
    gains = list(GAINS.values())
    done = compare(seeds, *named, "-f", "json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert found["n"] == 4
    assert found["mean"] == pytest.approx(statistics.fmean(gains))
    assert found["deviation"] == pytest.approx(statistics.stdev(gains))
    assert [one["seed"] for one in found["rounds"]] == [0, 1, 2, 3]
    said = compare(seeds, *named).output
    assert "Gain of physics over 4 seeds: mean +0.18, standard deviation 0.0589." in said
    assert "Only" not in said


def test_of_a_seed_the_newest_round_counts(seeds: Store) -> None:
    found = json.loads(compare(seeds, "r3", "-f", "json").output)
    assert [one["round"] for one in found["rounds"]] == ["r0-old", "r1-again", "r2", "r3"]


def test_fewer_seeds_say_how_many(seeds: Store) -> None:
    said = compare(seeds, "r0", "r2").output
    assert (
        "over 2 seeds: mean +0.22, standard deviation 0.0283. Only 2 seeds: 4 say how much it varies." in said
    )
    said = compare(seeds).output  # the newest is of another recipe
    assert "over 1 seed: mean +0.5, standard deviation not measured. Only 1 seed" in said


def test_a_round_that_measured_nothing_is_named_and_no_number(seeds: Store) -> None:
    write(seeds, "r4", recipe(4), None)
    found = json.loads(compare(seeds, "r4", "r2", "r3", "-f", "json").output)
    assert (found["n"], found["rounds"][2]["reason"]) == (2, "no training data")
    assert found["mean"] == pytest.approx((GAINS[2] + GAINS[3]) / 2)
    assert "seed 4    r4  not measured: no training data" in compare(seeds, "r4", "r2", "r3").output
    write(seeds, "r5", recipe(5), None)
    assert "The gain was not measured in any of these rounds." in compare(seeds, "r4", "r5").output


@pytest.mark.parametrize(
    ("named", "said"),
    [
        (["r0", "x9"], "differ in more than the seed: finetune.steps"),
        (["r1", "r1-again"], "two of these rounds have one seed"),
        (["r0", "gone"], "no finished round 'gone'"),
    ],
)
def test_what_cannot_be_compared_is_refused(seeds: Store, named: list[str], said: str) -> None:
    done = compare(seeds, *named)
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())


def test_what_only_costs_is_no_difference() -> None:
    assert differences(recipe(0), recipe(5)) == []
    judge = {"examiner": {"kind": "judge", "model": "n", "concurrency": 1}}
    assert differences(recipe(0), recipe(0, rewards=judge)) == ["rewards.examiner.model"]
    assert differences(recipe(0), recipe(0, model={"path": "other", "device": "cpu"})) == ["model.path"]


@pytest.mark.slow
def test_seeds_of_a_real_round_are_found_and_stand_in_its_report(tiny: Tiny) -> None:
    play(tiny)
    play(tiny, "seed=1")
    last = play(tiny, "seed=2", "finetune.steps=4")
    second = play(tiny, "seed=2", "workers=2")
    found = json.loads(compare(Store.open(tiny.store), "-f", "json").output)
    assert [one["seed"] for one in found["rounds"]] == [0, 1, 2]
    assert last["round"] not in {one["round"] for one in found["rounds"]}
    page = Path(tiny.store / "rounds" / second["round"] / "report.html").read_text("utf-8")
    assert "Gain of physics over 3 seeds: mean +0, standard deviation 0. Only 3 seeds" in page
    assert all(one["round"] in page for one in found["rounds"])
