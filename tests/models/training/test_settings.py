"""Settings of training: what cannot train is refused by its key, and names of before 0.2 still mean what they did."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from data.settings import RenamedKey
from models.training.settings import FinetuneSettings, TrainSettings, label_of, settings_of


@pytest.mark.parametrize(
    "change",
    [
        {"objective": "ppo"},
        {"steps": 0},
        {"batch_size": 0},
        {"lr": 0.0},
        {"lr": float("nan")},
        {"beta": 0.0},
        {"sft_weight": -1.0},
        {"fixed_noise_samples": -1},
        {"micro_batch": 0},
        {"prompt_dropout": 1.0},
        {"max_grad_norm": 0.0},
        {"target_logit_std": 0.0},
        {"desirable_share": 1.0},
        {"nft_beta": 1.5},
        {"probe": -1},
        {"reference_errors": "stored"},
    ],
)
def test_settings_that_cannot_train_name_their_key(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(change))):
        FinetuneSettings(**change)


def test_beta_belongs_to_objectives_that_compare_errors() -> None:
    assert FinetuneSettings(objective="sft", beta=0.0).algorithm.pairwise is False
    assert FinetuneSettings(objective="dpo").algorithm.pairwise is True
    with pytest.raises(ValidationError, match=r"finetune\.beta is 0\.0; it must be above 0"):
        FinetuneSettings(objective="kto", sft_weight=1.0, beta=0.0)


def test_distance_to_the_reference_is_a_term_of_any_objective() -> None:
    assert FinetuneSettings(objective="sft", kl=0.1).compares_predictions
    assert not FinetuneSettings(objective="sft").compares_predictions
    assert FinetuneSettings(objective="nft").compares_predictions


def test_where_no_objective_is_said_dpo_is_anchored_and_one_that_is_said_is_alone() -> None:
    assert FinetuneSettings().label == "dpo-anchor"
    assert FinetuneSettings().sft_weight == 1.0
    assert FinetuneSettings(sft_weight=0.3).sft_weight == 0.3
    assert FinetuneSettings(objective="dpo").label == "dpo"
    assert FinetuneSettings().changed(lr=1e-5).label == "dpo-anchor"


@pytest.mark.parametrize(
    ("said", "objective", "weight"),
    [
        ({"objective": "dpo-anchor"}, "dpo", 1.0),
        ({"objective": "kto-anchor", "anchor": 0.3}, "kto", 0.3),
        ({"anchor": 0.3}, "dpo", 0.3),
        ({"objective": "kto", "anchor": 1.0}, "kto", 0.0),  # it never had an effect there
    ],
)
def test_an_objective_that_named_a_term_still_means_it(
    said: dict[str, Any], objective: str, weight: float
) -> None:
    with pytest.warns(RenamedKey, match="sft_weight"):
        found = FinetuneSettings.model_validate(said)
    assert (found.objective, found.sft_weight) == (objective, weight)


def test_two_names_of_one_term_are_refused() -> None:
    with pytest.raises(ValidationError, match="say sft_weight only"):
        FinetuneSettings.model_validate({"anchor": 0.3, "sft_weight": 0.3})


def test_former_keys_are_told_the_new_ones() -> None:
    old = {
        "sigma": "uniform", "sigma_mean": 1.0, "sigma_std": 2.0, "draws": 4, "desirable": 0.4, "target_spread": 3.0,
    }  # fmt: skip
    with pytest.warns(RenamedKey) as told:
        found = FinetuneSettings.model_validate(old)
    assert len(told) == len(old)
    assert (found.timestep_sampling, found.logit_mean, found.logit_std) == ("uniform", 1.0, 2.0)
    assert (found.fixed_noise_samples, found.desirable_share, found.target_logit_std) == (4, 0.4, 3.0)


def test_labels_of_tables_are_a_pair_of_settings() -> None:
    assert settings_of("dpo-anchor") == {"objective": "dpo", "sft_weight": 1.0}
    assert settings_of("rwr-exp") == {"objective": "rwr-exp", "sft_weight": 0.0}
    for label in ("dpo", "dpo-anchor", "rwr-exp", "rwr-exp-anchor"):
        assert label_of(**settings_of(label)) == label


def test_settings_survive_json_and_a_range_of_noise_is_a_range() -> None:
    full = TrainSettings(seed=3, sigma_range=(0.875, 1.0), targets=("to_q",), expert="high", processes=2)
    assert TrainSettings.model_validate(json.loads(json.dumps(full.model_dump(mode="json")))) == full
    assert "sigma_range" not in full.fingerprint(), "it is the expert's, and the expert is named"
    with pytest.raises(ValidationError, match="no range within 0 and 1"):
        TrainSettings(sigma_range=(0.9, 0.9))


def test_what_only_costs_is_in_no_fingerprint() -> None:
    cheap = TrainSettings(
        micro_batch=4, checkpoint_every=7, gradient_checkpointing=True, memory_gb=3.0, compile=True,
        attention="default", processes=3,
    )  # fmt: skip
    assert cheap.fingerprint() == TrainSettings().fingerprint() == {"sft_weight": 1.0}
    assert TrainSettings(lr=1e-5).fingerprint() != TrainSettings().fingerprint()
