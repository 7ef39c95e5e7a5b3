from typing import Any

import pytest
from pydantic import ValidationError

from data.errors import UserError
from models.families.settings import ModelSettings
from models.gate.settings import GateSettings
from models.settings import OBJECTIVES, FinetuneSettings


@pytest.mark.parametrize(
    "change",
    [
        {"objective": "ppo"},
        {"steps": 0},
        {"batch_size": 0},
        {"lr": 0.0},
        {"lr": float("nan")},
        {"beta": 0.0},
        {"anchor": -1.0},
        {"draws": -1},
        {"micro_batch": 0},
        {"prompt_dropout": 1.0},
        {"max_grad_norm": 0.0},
        {"target_spread": 0.0},
        {"desirable": 1.0},
        {"nft_beta": 1.5},
        {"probe": -1},
        {"reference_errors": "stored"},
    ],
)
def test_settings_that_cannot_train_name_their_key(change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"finetune.{next(iter(change))}"):
        FinetuneSettings(**change)


def test_beta_belongs_to_objectives_that_compare_errors() -> None:
    assert FinetuneSettings(objective="sft", beta=0.0).pairwise is False
    assert FinetuneSettings(objective="dpo").pairwise is True
    with pytest.raises(UserError, match=r"finetune\.beta"):
        FinetuneSettings(objective="kto-anchor", beta=0.0)


def test_every_objective_says_what_it_needs() -> None:
    needs = {
        name: (one.pairwise, one.labelled, one.compares_errors, one.compares_predictions, one.anchored)
        for name in OBJECTIVES
        if (one := FinetuneSettings(objective=name))
    }
    plain = (False, False, False, False, False)
    assert needs["sft"] == needs["unfiltered"] == needs["rwr"] == needs["rwr-exp"] == plain
    assert needs["dpo"] == (True, False, True, False, False)
    assert needs["kto"] == (False, True, True, False, False)
    assert needs["nft"] == (False, True, False, True, False)
    for name, need in needs.items():
        if name.endswith("-anchor"):
            assert need == (*needs[name.removesuffix("-anchor")][:4], True)
    assert FinetuneSettings(objective="sft", kl=0.1).compares_predictions


def test_model_and_gate_settings_are_checked() -> None:
    with pytest.raises(ValidationError, match="dtype"):
        ModelSettings(family="wan", path="x", dtype="float8")
    for change in ({"draws": 0}, {"confidence": 1.0}, {"min_ratio": 1.1}, {"max_ratio": 0.9}):
        with pytest.raises(ValidationError, match=next(iter(change))):
            GateSettings(**change)
