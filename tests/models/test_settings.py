from typing import Any

import pytest

from data.errors import BadInput
from models.settings import FinetuneSettings, GateSettings, ModelSettings


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
    ],
)
def test_settings_that_cannot_train_name_their_key(change: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=f"finetune.{next(iter(change))}"):
        FinetuneSettings(**change)


def test_beta_belongs_to_pairwise_objectives() -> None:
    assert FinetuneSettings(objective="sft", beta=0.0).pairwise is False
    assert FinetuneSettings(objective="dpo").pairwise is True


def test_model_and_gate_settings_are_checked() -> None:
    with pytest.raises(BadInput, match=r"model\.dtype"):
        ModelSettings("wan", "x", dtype="float8")
    for change in ({"draws": 0}, {"confidence": 1.0}, {"min_ratio": 1.1}, {"max_ratio": 0.9}):
        with pytest.raises(BadInput, match="gate"):
            GateSettings(**change)
