"""The grid as data: which cells there are, and what a study may not say."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from data.errors import UserError
from data.records import Studied
from data.resources import find
from studies.grid import PARTS, cells, parts
from studies.plans import choose
from studies.recipe import Study, cell_recipe, load_study, merged
from studies.standings import rungs
from tests.tiny_study import TinyStudy

SHIPPED = "recipes/study-mini.yaml"
TUNING = {"seed": 9, "feedback": "judge-binary", "prompts": "dev", "clips": 3}


@pytest.fixture(scope="module")
def shipped() -> Study:
    return load_study(SHIPPED)


def test_the_main_grid_is_every_feedback_with_every_objective_and_one_control_a_seed(shipped: Study) -> None:
    main = cells(shipped, ["main"])
    assert len(shipped.seeds) >= 3
    assert len(main) == 36 * len(shipped.seeds)
    assert len({(cell.feedback, cell.objective, cell.seed) for cell in main}) == len(main)
    by_objective = Counter(cell.objective for cell in main if cell.seed == shipped.seeds[0])
    assert by_objective == {
        "unfiltered": 1, "sft": 5, "rwr": 5, "rwr-exp": 5, "dpo": 5, "dpo-anchor": 5, "kto": 5, "nft": 5,
    }  # fmt: skip


def test_every_objective_is_tuned_equally_long_on_a_seed_of_its_own(shipped: Study) -> None:
    (tried,) = rungs(shipped, [])
    assert len({*Counter(cell.objective for cell in tried).values()}) == 1
    assert {cell.objective for cell in tried} == set(shipped.objectives)
    assert {cell.seed for cell in tried}.isdisjoint(shipped.seeds)
    assert {cell.feedback for cell in tried} == {"judge-binary"}


def test_sweeps_vary_what_they_are_named_after(shipped: Study) -> None:
    noise = cells(shipped, ["noise"])
    assert sorted({cell.noise for cell in noise}) == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert {cell.changes["shaping"]["label_noise"] for cell in noise} == {cell.noise for cell in noise}
    held_out = cells(shipped, ["category-heldout"])
    assert {cell.changes["curate"]["exclude_categories"][0] for cell in held_out} == {
        "deformable objects", "directional movement", "falling down", "multiple objects", "object removal",
    }  # fmt: skip
    assert {cell.changes["finetune"]["fixed_noise_samples"] for cell in cells(shipped, ["draws"])} == {
        4,
        16,
        0,
    }
    assert all(cell.rounds >= 2 for cell in cells(shipped, ["reference"]))
    assert {cell.rounds for cell in cells(shipped, ["in-a-row"])} == {3}
    everything = cells(shipped, PARTS)
    assert len(
        {(cell.variant, cell.feedback, cell.objective, cell.seed, cell.value) for cell in everything}
    ) == len(everything)


def test_all_cells_have_equal_clips_and_equal_steps(shipped: Study) -> None:
    budgets = set()
    for cell in [*cells(shipped), *rungs(shipped, [])[0]]:
        for trial in shipped.objectives[cell.objective]:  # type: ignore[index]
            recipe = cell_recipe(
                shipped, shipped.feedbacks[cell.feedback], {"finetune": {"objective": cell.objective}},  # type: ignore[index]
                trial, cell.changes,
            )  # fmt: skip
            chosen = recipe.generate
            budgets.add(
                (recipe.finetune.steps, recipe.finetune.batch_size, chosen.clips_per_prompt, chosen.prompts)
            )
            assert recipe.curate.margin == 0.3
    assert len(budgets) == 1


def test_only_names_the_parts_to_play() -> None:
    assert parts([]) == PARTS
    assert parts(["noise", "main"]) == ("main", "noise")
    with pytest.raises(UserError, match=r"--only nois: .* did you mean noise"):
        parts(["nois"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": [0]}, "unknown key; did you mean seeds"),
        ({"seeds": [0, 0]}, "seeds names one twice"),
        ({"seeds": [9]}, r"tuning.seed 9 is one of the study's seeds"),
        ({"feedbacks": {"juge": {}}}, "judge-binary"),
        ({"feedbacks": {"judge-binary": {"feedback": "juge"}, "flow": {"feedback": "flow"}}}, "juge"),
        ({"objectives": {"sft": [{"finetune": {"lr": 1e-4}}], "dpo-anchor": []}}, "equal search budget"),
        ({"accept_like": "oracle"}, "accept_like names feedback 'oracle'"),
        ({"in_a_row": {"feedback": "flow", "objective": "kto", "rounds": 2}}, "names objective 'kto'"),
        ({"sweeps": {"nois": {}}}, "did you mean sweeps.noise"),
        ({"sweeps": {"pairs": {"feedbacks": ["flow"], "objectives": ["sft"], "per_prompt": [1]}}}, "from pairs"),
        ({"best_of": {"clips_per_prompt": 4, "sizes": [3]}}, "no whole groups of 3"),
        ({"tuning": None}, "no `tuning` to choose by"),
        ({"tuning": {**TUNING, "later_seeds": [1]}}, r"tuning.seed 1 is one of the study's seeds"),
        ({"tuning": {**TUNING, "later_seeds": [7, 9]}}, "tuning names one twice"),
        ({"search": {"draws": 2, "ranges": {"sft": {"finetune.lr": [1e-4, 1e-3]}}}}, "leave out either of the two"),
    ],
)  # fmt: skip
def test_what_a_study_may_not_say(study_file: TinyStudy, change: dict[str, Any], message: str) -> None:
    study_file.write(**change)
    with pytest.raises(UserError, match=message):
        load_study(str(study_file.file))


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"finetune": {"steps": 5}}, r"objectives.sft\[0\]: finetune.steps is the same for every cell"),
        ({"generate": {"clips_per_prompt": 9}}, "generate is the same for every cell"),
        ({"finetune": {"lrr": 1e-4}}, "did you mean finetune.lr"),
    ],
)
def test_an_objective_may_not_change_the_budget(
    study_file: TinyStudy, tree: dict[str, Any], message: str
) -> None:
    tried = [tree, {"finetune": {"lr": 1e-3}}]
    study_file.write(objectives={**study_file.tree()["objectives"], "sft": tried})
    with pytest.raises(UserError, match=message):
        load_study(str(study_file.file))


def test_a_feedback_may_not_change_the_clips(study_file: TinyStudy) -> None:
    feedbacks = study_file.tree()["feedbacks"]
    feedbacks["flow"]["evaluate"] = {"clips": 1}
    study_file.write(feedbacks=feedbacks)
    with pytest.raises(UserError, match="evaluate is the same for every cell"):
        load_study(str(study_file.file))


def test_set_reaches_every_part(study_file: TinyStudy) -> None:
    study = load_study(str(study_file.file), ["seeds=[5]", "cell.finetune.steps=1", "sweeps.noise=null"])
    assert study.seeds == [5]
    assert study.sweeps.noise is None
    assert cell_recipe(study, study.feedbacks["flow"]).finetune.steps == 1


def test_trees_are_laid_over_one_another() -> None:
    below = {"a": {"b": 1, "c": [1, 2]}, "d": 3}
    assert merged(below, {"a": {"c": [3]}}) == {"a": {"b": 1, "c": [3]}, "d": 3}
    assert below["a"] == {"b": 1, "c": [1, 2]}


def test_the_shipped_study_names_the_worlds_categories_and_the_rounds_recipe() -> None:
    tree = yaml.safe_load(find(SHIPPED).read_text())
    assert find(tree["recipe"]).is_file()
    assert tree["cell"]["judge"]["backend"] == "local"


def row(objective: str, trial: int, before: float | None, after: float | None) -> Studied:
    """A tuning row."""
    return Studied(
        study="s", cell=f"{objective}{trial}", variant="tuning", value=f"setting {trial}", feedback="judge-binary",
        objective=objective, seed=9, rounds=1, best_of=1, noise=0.0, metric="physics", split="dev", before=before,
        after=after, ci_low=None, ci_high=None, n=4, clips=4, labels=4, accepted=2, pairs=1, steps=2, batch=2,
        promoted=False, outcome="", policy_before="m", policy_after="n", curate_key="", finetune_key="", evaluate_key="",
        settings="{}", categories="{}", guards="{}", diagnosis="[]",
    )  # fmt: skip


def test_tuning_takes_what_gained_most(study_file: TinyStudy) -> None:
    study = load_study(str(study_file.file))
    rows = [
        row("sft", 0, 0.4, 0.5), row("sft", 1, 0.4, 0.6),
        row("unfiltered", 0, 0.4, 0.3), row("unfiltered", 1, 0.4, 0.3),
        row("dpo-anchor", 0, 0.4, 0.2), row("dpo-anchor", 1, None, None),
    ]  # fmt: skip
    assert choose(study, rows).trials == {"sft": 1, "unfiltered": 0, "dpo-anchor": 0}
    assert choose(study, []).of("sft") == 0
    assert choose(study, [replace(one, objective="kto") for one in rows]).trials == {}


def test_files_that_are_no_study(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    with pytest.raises(UserError, match="study"):
        load_study(str(path))
    path.write_text(
        "name: x\nrecipe: nowhere.yaml\nseeds: [0]\nfeedbacks: {flow: {}}\nobjectives: {sft: [{}]}\n"
    )
    with pytest.raises(UserError, match=r"nowhere\.yaml"):
        load_study(str(path))
