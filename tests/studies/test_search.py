"""Settings drawn from ranges, and the halving that chooses among them under the gate's guards."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data.errors import UserError
from data.records import Studied
from data.store import Store
from studies.grid import Cell, cells
from studies.plans import choose
from studies.recipe import Study, load_study
from studies.standings import places, rungs, standings, table
from tests.tiny_round import Ended
from tests.tiny_study import TinyStudy

RANGES = {
    "sft": {"finetune.lr": [1e-4, 1e-2]},
    "sdpo-anchor": {"finetune.lr": [1e-4, 1e-2], "finetune.sft_weight": [1.0, 100.0], "finetune.sdpo_mu": [0.0, 1.0]},
}  # fmt: skip
SEEDS = (9, 10, 11)


def searched(file: TinyStudy, draws: int = 9, **search: Any) -> Study:
    """The tiny study with ranges in place of settings, and two seeds more to halve on."""
    return load_study(str(written(file, draws, **search).file))


def written(file: TinyStudy, draws: int, **search: Any) -> TinyStudy:
    # Of flow, which never says the same of all clips, as a judge of random weights may.
    tuning = {**file.tree()["tuning"], "feedback": "flow", "later_seeds": [10, 11], "keep": 0.34}
    none: dict[str, Any] = {"objectives": None, "in_a_row": None, "sweeps": {}}
    tree = {
        **file.tree(), **none, "tuning": tuning, "search": {"draws": draws, "ranges": RANGES, **search}
    }  # fmt: skip
    del tree["objectives"]
    file.write_only(tree)
    return file


def row(cell: Cell, gain: float | None, broken: str = "") -> Studied:
    """What a tuning cell may leave."""
    guards = {name: {"before": 1.0, "after": 1.0, "ok": name != broken} for name in ("motion", "diversity")}
    return Studied(
        study="s", cell=f"{cell.objective}{cell.trial}{cell.seed}", variant="tuning", value=cell.value,
        feedback="judge-binary", objective=cell.objective, seed=cell.seed, rounds=1, best_of=1, noise=0.0,
        metric="physics", split="dev", before=None if gain is None else 0.4, after=None if gain is None else 0.4 + gain,
        ci_low=None, ci_high=None, n=4, clips=4, labels=4, accepted=2, pairs=1, steps=2, batch=2, promoted=False,
        outcome="" if gain is not None else "step 3: loss became nan", policy_before="m", policy_after="n",
        curate_key="", finetune_key="", evaluate_key="", settings="{}", categories="{}", guards=json.dumps(guards),
        diagnosis="[]",
    )  # fmt: skip


def play(study: Study, gain: Callable[[Cell], float | None], broken: Callable[[Cell], str]) -> list[Studied]:
    """Every rung, each chosen by the rows of those before."""
    rows: list[Studied] = []
    for number in range(len(SEEDS)):
        rows += [row(cell, gain(cell), broken(cell)) for cell in rungs(study, rows)[number]]
    return rows


def test_draws_reach_everywhere_and_are_an_objectives_own(study_file: TinyStudy) -> None:
    study = searched(study_file)
    assert {name: len(tried) for name, tried in study.objectives.items()} == {"sft": 9, "sdpo-anchor": 9}
    for objective, ranges in RANGES.items():
        for key, (low, high) in ranges.items():
            values = [tree["finetune"][key.removeprefix("finetune.")] for tree in study.objectives[objective]]
            shares = [math.log(v / low) / math.log(high / low) if low else v / high for v in values]
            # One of each ninth, to the rounding of a value.
            assert all(
                place - 0.15 <= 9 * share <= place + 1.15 for place, share in enumerate(sorted(shares))
            )
    alone = searched(study_file, ranges={"sft": RANGES["sft"]})
    assert alone.objectives["sft"] == study.objectives["sft"]
    assert searched(study_file, seed=1).objectives["sft"] != study.objectives["sft"]


def test_each_objective_is_halved_for_itself_on_seeds_of_its_own(study_file: TinyStudy) -> None:
    study = searched(study_file)
    # sft gains less than any setting of the other one, and has the same budget.
    rows = play(
        study, lambda cell: cell.trial / 100 + (0.3 if cell.objective != "sft" else 0.0), lambda _: ""
    )
    counts = Counter((one.objective, one.seed) for one in rows)
    assert [places(study, rung) for rung in range(3)] == [9, 4, 2]
    assert counts == {(name, seed): n for name in RANGES for seed, n in zip(SEEDS, (9, 4, 2), strict=True)}
    assert choose(study, rows).trials == {"sft": 8, "sdpo-anchor": 8}
    assert {one.value for one in rows if one.seed == 11} == {"setting 7", "setting 8"}


def test_what_looks_best_once_and_not_again_is_not_chosen(study_file: TinyStudy) -> None:
    study = searched(study_file)
    lucky = {9: 0.2, 10: 0.0, 11: 0.0}
    rows = play(study, lambda cell: lucky[cell.seed] if cell.trial == 3 else cell.trial / 100, lambda _: "")
    assert choose(study, rows).of("sft") == 8


def test_a_setting_that_breaks_a_guard_is_out(study_file: TinyStudy) -> None:
    study = searched(study_file)
    for seed in (9, 11):
        rows = play(
            study,
            lambda cell: cell.trial / 100,
            lambda cell: "diversity" if (cell.trial, cell.seed) == (8, seed) else "",  # noqa: B023
        )
        assert choose(study, rows).of("sft") == 7
        told = next(line for line in table(study, rows) if line.split()[:2] == ["sft", "8"])
        assert f"refused: diversity (seed {seed})" in told
    # Where all do, the best of them stands first, and is told to be refused.
    rows = play(study, lambda cell: cell.trial / 100, lambda _: "motion")
    assert choose(study, rows).of("sft") == 8


def test_a_training_that_diverged_is_null_with_its_reason_and_the_last_choice(study_file: TinyStudy) -> None:
    study = searched(study_file)
    rows = play(study, lambda cell: None if cell.trial > 2 else -0.2, lambda _: "")
    assert choose(study, rows).of("sft") == 0
    told = [line for line in table(study, rows) if line.split()[0] == "sft"]
    assert len(told) == 9
    assert "none" in told[-1]
    assert "loss became nan" in told[-1]


def test_a_winner_on_an_edge_is_told(study_file: TinyStudy) -> None:
    study = searched(study_file)
    order = sorted(range(9), key=lambda trial: study.objectives["sft"][trial]["finetune"]["lr"])
    for best, on_edge in ((order[-1], True), (order[4], False)):
        rows = play(study, lambda cell: float(cell.trial == best), lambda _: "")  # noqa: B023
        assert standings(study, "sft", rows)[0].trial == best
        assert ("on the edge: finetune.lr" in table(study, rows)[0]) == on_edge


def test_a_rung_is_not_known_before_the_one_below_is_whole(study_file: TinyStudy) -> None:
    study = searched(study_file)
    rows = play(study, lambda cell: cell.trial / 100, lambda _: "")
    assert len(rungs(study, [])) == 1
    first = [one for one in rows if one.seed == 9]
    assert len(rungs(study, first)) == 2
    assert len(rungs(study, first[1:])) == 1
    assert len(rungs(study, [replace(one, variant="main") for one in rows])) == 1


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"ranges": {"sft": {"finetune.lr": [1e-3, 1e-3]}}}, "is no range"),
        ({"ranges": {"sft": {"finetune.lr": [1e-3]}}}, "finetune.lr"),
        ({"ranges": {"sft": {}}}, "ranges.sft names no setting"),
        ({"ranges": {"sft": {"generate.guidance": [1.0, 2.0]}}}, "pattern"),
        ({"ranges": {"sft": {"finetune.steps": [1, 200]}}}, "finetune.steps is the same for every cell"),
        ({"ranges": {"stf": {"finetune.lr": [1e-3, 1e-2]}}}, "sft"),
        ({"draws": 1}, "2"),
    ],
)
def test_ranges_that_are_none(study_file: TinyStudy, search: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        searched(study_file, **{"draws": 3, **search})


def test_the_shipped_search_is_of_the_shipped_rounds_budget() -> None:
    study = load_study("recipes/study-search-mini.yaml")
    assert study.search is not None
    assert len({len(tried) for tried in study.objectives.values()}) == 1
    assert study.tuning is not None
    assert study.tuning.prompts == "dev"
    assert {cell.variant for cell in cells(study, ["tuning", "main"])} == {"main"}


@pytest.mark.slow
def test_a_search_is_played_rung_by_rung_and_gone_on_with(
    tiny_study: TinyStudy, vidloop: Callable[..., Ended], tmp_path: Path
) -> None:
    # A beta at which the gradient is no number any more.
    ranges = {"sft": {"finetune.lr": [1e-4, 1e-3]}, "dpo": {"finetune.beta": [1e37, 1e38]}}
    written(tiny_study, 3, ranges=ranges)
    ended = vidloop(*tiny_study.args("--only", "tuning", "--max-minutes", "0.01"))
    assert ended.code == 0, ended.err
    assert "the same command continues" in ended.out
    ended = vidloop(*tiny_study.args("--only", "tuning"))
    assert ended.code == 0, ended.err
    store = Store.open(tiny_study.store)
    rows = [one for found in store.manifests("study") for one in store.read(found.key, "studies")]
    assert Counter((one.objective, one.seed) for one in rows) == {
        (name, seed): count for name in ranges for seed, count in zip(SEEDS, (3, 2, 1), strict=True)
    }
    for one in rows:
        told = (one.after, one.policy_after, one.evaluate_key)
        if one.objective == "dpo":
            assert told == (None, "", ""), "settings that diverge are null, and end no search"
            assert "became" in one.outcome
        else:
            assert all(told)
    assert sum(line.split()[:1] == ["sft"] for line in ended.out.splitlines()) == 3
    again = vidloop(*tiny_study.args("--only", "tuning"))
    assert "0 cells played, 12 were there, 0 left" in again.out
    assert "tuning: 12 cells, 12 cached" in vidloop(*tiny_study.args("--dry-run")).out
