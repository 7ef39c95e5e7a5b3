"""The report over rows whose truth is known: intervals, who beats whom, what is kept, the contract."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.errors import UserError
from data.keys import digest
from data.records import Evaluation, Studied
from data.store import Store
from studies.contract import KEYS, entries, text
from studies.facts import Facts
from studies.recipe import Study, load_study
from studies.report import BEGIN, END, by_hand, markdown, write
from studies.tables import gain, pairwise
from tests.tiny_round import ROOT
from tests.tiny_study import TinyStudy

PROMPTS, CLIPS, BASE = 30, 4, 0.4
# Success after training by (feedback, objective): what the report has to find.
TRUTH = {
    ("judge-binary", "sft"): 0.5, ("judge-binary", "dpo-anchor"): 0.75,
    ("clip", "sft"): 0.25, ("clip", "dpo-anchor"): 0.15,
    ("judge-binary", "unfiltered"): 0.4,
}  # fmt: skip


def commit_cell(
    store: Store,
    feedback: str,
    objective: str,
    seed: int,
    after: float,
    variant: str = "main",
    **fields: object,
) -> None:
    """A cell's evaluation, drawn with the stated success rates, and its row."""
    rng = np.random.default_rng(int(digest([feedback, objective, seed, variant, str(fields)])[:8], 16))
    shared = np.random.default_rng(seed)
    before = shared.random((PROMPTS, CLIPS)) < BASE
    won = rng.random((PROMPTS, CLIPS)) < after
    more = "-".join(map(str, fields.values()))
    policy = f"m-{feedback}-{objective}-{seed}-{variant}-{more}"
    rows = [
        Evaluation(name, f"p{p:02d}", f"k{p % 2}", "heldout", 100 * seed + k, "physics", float(values[p, k]), "ok",
                   None, f"c-{name}-{seed}-{p}-{k}")
        for name, values in (("base", before), (policy, won))
        for p in range(PROMPTS)
        for k in range(CLIPS)
    ]  # fmt: skip
    question = {"stage": "evaluate", "version": 1, "name": policy}
    evaluated = store.commit("evaluate", question, {"evaluations": rows})
    row = Studied(
        study="tiny-study", cell="s" + policy, variant=variant, value="", feedback=feedback, objective=objective,
        seed=seed, rounds=1, best_of=1, noise=0.0, metric="physics", split="heldout", before=float(before.mean()),
        after=float(won.mean()), ci_low=0.0, ci_high=0.1, n=PROMPTS * CLIPS, clips=12, labels=12, accepted=6, pairs=9,
        steps=2, batch=4, promoted=True, outcome="promoted", policy_before="base", policy_after=policy, curate_key="",
        finetune_key="", evaluate_key=evaluated.key, settings='{"finetune": {"lr": 0.001}}',
        categories='{"k0": {"before": 0.4, "after": 0.5, "ci_low": 0.0, "ci_high": 0.2}, "k1": {"before": 0.4, "after": 0.5, "ci_low": 0.0, "ci_high": 0.2}}',
        guards='{"motion": {"before": 1.0, "after": 0.9}}',
        diagnosis='[{"name": "saturation", "text": "Most pairs are saturated."}]',
    )  # fmt: skip
    row = replace(row, **fields)  # type: ignore[arg-type]
    store.commit("study", {"stage": "study", "version": 1, "name": policy}, {"studies": [row]})


@pytest.fixture
def study(study_file: TinyStudy) -> Study:
    return load_study(str(study_file.file))


@pytest.fixture
def studied(store: Store, study: Study) -> Facts:
    for (feedback, objective), after in TRUTH.items():
        for seed in (0, 1, 2):
            commit_cell(store, feedback, objective, seed, after)
    for seed in (0, 1, 2):
        commit_cell(store, "judge-binary", "sft", seed, 0.45, "tuning", value="setting 0")
        for number, after in ((1, 0.75), (2, 0.9)):
            commit_cell(store, "judge-binary", "dpo-anchor", seed, after, "in-a-row", rounds=number)
        for share, after in ((0.0, 0.6), (0.4, 0.4)):
            commit_cell(
                store, "judge-binary", "sft", seed, after, "noise", noise=share, value=f"noise {share:g}"
            )
    return Facts(store, study)


@pytest.mark.parametrize(("cell", "truth"), TRUTH.items())
def test_intervals_hold_the_truth(studied: Facts, cell: tuple[str, str], truth: float) -> None:
    effect = studied.effect(studied.main(*cell))
    assert effect is not None
    assert (effect.n, effect.seeds) == (3 * PROMPTS * CLIPS, 3)
    assert effect.low is not None
    assert effect.high is not None
    # The base's own rate is drawn too, and is the same for every cell of a seed.
    assert effect.low <= truth - BASE <= effect.high
    assert effect.low < effect.value < effect.high


def test_a_seed_that_learned_nothing_is_told_and_is_no_zero(studied: Facts) -> None:
    rows = studied.main("judge-binary", "sft")
    fewer = studied.effect([*rows[:2], replace(rows[2], after=None)])
    assert fewer is not None
    assert (fewer.seeds, fewer.absent) == (2, 1)
    assert gain(fewer).endswith("), 1 seeds without training data")
    assert fewer.value == pytest.approx(sum(row.after - row.before for row in rows[:2]) / 2)  # type: ignore[operator]
    assert studied.effect([replace(row, after=None) for row in rows]) is None
    assert gain(None) == "no training data"


def test_feedbacks_are_compared_on_the_same_clips(studied: Facts) -> None:
    judge, clip = (studied.main(name, "dpo-anchor") for name in ("judge-binary", "clip"))
    between = studied.between(judge, clip)
    assert between is not None
    assert between.sign == 1
    assert between.low is not None
    assert between.high is not None
    assert between.low <= 0.6 <= between.high
    other = studied.between(clip, judge)
    assert other is not None
    assert (other.value, other.sign) == (pytest.approx(-between.value), -1)
    same = studied.between(judge, judge)
    assert same is not None
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    half = studied.between(judge, clip, "k0")
    assert half is not None
    assert half.n == between.n / 2


def test_tables_say_what_the_figures_say(studied: Facts, study: Study) -> None:
    assert (studied.feedbacks, studied.objectives) == (
        ["judge-binary", "clip"],
        ["unfiltered", "sft", "dpo-anchor"],
    )
    page = markdown(study, studied, "")
    cells = [line.split(" | ") for line in rows_of(page, "Gain over the base")]
    assert [line[0] for line in cells[2:]] == ["| `unfiltered`", "| `sft`", "| `dpo-anchor`"]
    assert cells[2][2] == " |"  # the control has one cell for all feedbacks
    against = rows_of(page, "Each objective against the base")
    judged = {tuple(line.split(" | ")[:2]): line for line in against}
    for feedback, objective, beats in (
        ("judge-binary", "sft", "yes"), ("judge-binary", "dpo-anchor", "yes"), ("clip", "sft", "no"),
        ("(all clips)", "unfiltered", "no"),
    ):  # fmt: skip
        line = judged[f"| `{objective}`", feedback]
        assert line.split(" | ")[2] == beats
        assert "saturation (3 of 3 seeds)" in line
    assert "- clip x `sft`, seed 0: Most pairs are saturated." in page
    assert "- judge-binary x" not in page
    first, last = rows_of(page, "Wrong labels")[2:]
    assert first.startswith("| judge-binary | `sft` | noise 0 |")
    assert last.startswith("| judge-binary | `sft` | noise 0.4 |")
    assert "| judge-binary | 12 | 12 | 6 | 9 | 2 | 4 |" in rows_of(page, "How it was run")


def rows_of(page: str, section: str) -> list[str]:
    """Lines of the tables of a section of the page."""
    found = page.partition(f"## {section}\n")[2].partition("\n## ")[0]
    return [line for line in found.splitlines() if line.startswith("|")]


def test_pairs_are_counted_of_the_objectives_that_learn_from_pairs(studied: Facts) -> None:
    named = {row.objective for row in pairwise(studied.rows)}
    assert named == {"dpo-anchor"}


def test_nobodys_expectation_is_in_the_page(studied: Facts, study: Study) -> None:
    page = markdown(study, studied, "")
    assert "asked for" not in page
    assert "the paper" not in page


def test_the_contract(studied: Facts) -> None:
    found = entries(studied.rows)
    assert json.loads(text(studied.rows)) == found
    assert all(tuple(entry)[: len(KEYS)] == KEYS for entry in found)
    # Tuning is no result; the first round in a row is the main grid's cell.
    assert {entry["variant"] for entry in found} == {"main", "noise"}
    assert [entry["rounds"] for entry in found if entry["rounds"] > 1] == [2, 2, 2]
    assert len(found) == 3 * (len(TRUTH) + 1 + 2)


def test_what_was_written_by_hand_stays_and_the_rest_is_written_again(
    studied: Facts, study: Study, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    written = write(study, studied, out)
    assert {path.name for path in written} == {
        "study.md", "study.json", "study-gains.svg", "study-noise.svg", "study-rounds.svg",
    }  # fmt: skip
    page = out / "study.md"
    first = page.read_text()
    assert "| `dpo-anchor` | +" in first
    page.write_text(first.replace(by_hand(first, "it"), "I looked at the clips.\n\n- They are fine."))
    before = {path: path.read_bytes() for path in written}
    write(study, studied, out)
    assert {path: path.read_bytes() for path in written} == before
    assert "- They are fine." in page.read_text()
    page.write_text(page.read_text().replace(END, ""))
    with pytest.raises(UserError, match="has lost the mark"):
        write(study, studied, out)
    assert BEGIN in page.read_text()


def test_cells_that_are_not_there_are_named_with_their_reason(studied: Facts, store: Store) -> None:
    fact = {"event": "cell", "stage": "study", "label": "main: flow x sft, seed 0", "error": "out of memory"}
    store.log_run("20260101T000000-00000000", fact)
    missing = dict(studied.missing())
    assert missing["main: flow x sft, seed 0"] == "out of memory"
    assert missing["main: flow x sft, seed 1"] == "not played"
    assert "main: judge-binary x sft, seed 0" not in missing


def test_a_store_without_the_study_says_so(store: Store, study: Study) -> None:
    with pytest.raises(UserError, match="holds no row of study tiny-study"):
        Facts(store, study)


def test_the_published_rows_are_those_of_the_contract_and_the_page_has_their_levels() -> None:
    rows = json.loads((ROOT / "docs/study.json").read_text())
    assert all(tuple(entry)[: len(KEYS)] == KEYS for entry in rows)
    page = (ROOT / "docs/study.md").read_text()
    levels: dict[tuple[str, str, str], list[float]] = {}
    for entry in rows:
        if entry["variant"] in ("noise", "pairs", "draws"):
            name = (entry["feedback"], entry["objective"], entry["value"])
            levels.setdefault(name, []).append(entry["after"])
    assert len(levels) >= 10
    for (feedback, objective, value), after in levels.items():
        line = next(line for line in page.splitlines() if f"| {feedback} | `{objective}` | {value} |" in line)
        assert float(line.split("|")[5]) == pytest.approx(sum(after) / len(after), abs=6e-4)
