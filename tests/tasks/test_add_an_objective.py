"""docs/add-an-objective.md does what it promises: its one file trains, is logged, and says what it lacks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from data.store import Store
from tests.doc_files import copy_with
from tests.tiny_round import Tiny, summaries

PAGE = "docs/add-an-objective.md"
ASK = """if True:
    import sys
    from models.training.settings import FinetuneSettings
    from flows.config.recipe import Recipe
    found = FinetuneSettings(objective="ipo")
    assert "torch" not in sys.modules
    print(found.algorithm.lacking([], []))
    print("ipo" in Recipe.model_json_schema()["$defs"]["FinetuneSettings"]["properties"]["objective"]["enum"])
"""


def test_one_file_is_an_objective_of_recipes_and_forms(tmp_path: Path) -> None:
    copy = copy_with(PAGE, tmp_path / "copy")
    assert copy.files == ("models/training/objectives/ipo.py",)
    said = copy.run("-c", ASK).splitlines()
    assert said == ["ipo learns from pairs, and the curation formed none", "True"]


def test_the_equation_is_the_papers(tmp_path: Path) -> None:
    code = """if True:
        import torch
        from models.training.objectives.ipo import ipo_loss
        policy, reference = torch.tensor([[0.1, 0.4]]), torch.tensor([[0.2, 0.3]])
        print(ipo_loss(policy, reference, 4.0).item())
    """
    said = copy_with(PAGE, tmp_path / "copy").run("-c", code)
    h = -0.5 * ((0.1 - 0.2) - (0.4 - 0.3))
    assert float(said) == pytest.approx(4.0**2 * (h - 1 / (2 * 4.0)) ** 2, rel=1e-5)


@pytest.mark.slow
def test_it_plays_a_round_and_its_curve_is_logged(tiny: Tiny, tmp_path: Path) -> None:
    copy = copy_with(PAGE, tmp_path / "copy")
    change = ("finetune.objective=ipo", "finetune.beta=30.0", "finetune.steps=3", "finetune.kl=0.1")
    copy.vidloop(
        "round", "--plain", "--recipe", tiny.recipe, "--store", tiny.store,
        *(part for one in change for part in ("--set", one)),
    )  # fmt: skip
    (summary,) = summaries(tiny.store)
    assert summary["objective"] == "ipo"
    (policy,) = Store.open(tiny.store).read(summary["stages"]["finetune"]["key"], "policies")
    assert policy.objective == "ipo"
    curve = json.loads(policy.curve)
    assert len(curve) == 3
    # before the first step the policy is the reference: every margin is 0
    assert curve[0]["ipo"] == pytest.approx(0.25)
    assert curve[0]["short"] == 1.0
    assert {"loss", "rewards/margins", "kl", "logit/rms"} <= curve[0].keys()
    assert all(torch.isfinite(torch.tensor(list(entry.values()))).all() for entry in curve)
