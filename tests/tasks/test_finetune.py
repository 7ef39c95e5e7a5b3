"""Every objective through the store: what it learns from, what it says when there is nothing, what is planned."""

from __future__ import annotations

import json
from typing import Any

import pytest

from data.records import Example, Pair
from data.store import Store
from models.training.settings import TrainSettings, settings_of
from tasks.stages import plan_stage
from tests.tiny_round import Tiny, begun, play


def examples(*accepted: bool) -> list[Example]:
    return [
        Example("d", f"c{i}", "p", "falling down", float(one), float(one), one, "")
        for i, one in enumerate(accepted)
    ]


@pytest.mark.parametrize(
    ("objective", "rows", "pairs", "said"),
    [
        ("sft", (False, False), 0, "sft learns from accepted clips"),
        ("unfiltered", (), 0, "unfiltered learns from every scored clip"),
        ("rwr-anchor", (False,), 0, "rwr-anchor learns from weighted clips"),
        ("dpo-anchor", (True, False), 0, "dpo-anchor learns from pairs"),
        (
            "kto",
            (True, True),
            0,
            "kto learns from accepted and rejected clips, and the curation rejected none",
        ),
        (
            "nft-anchor",
            (False,),
            0,
            "nft-anchor learns from accepted and rejected clips, and the curation accepted none",
        ),
        ("kto", (True, False), 0, ""),
        ("unfiltered", (False,), 0, ""),
        ("dpo", (True, False), 1, ""),
    ],
)
def test_what_an_objective_lacks_is_said(
    objective: Any, rows: tuple[bool, ...], pairs: int, said: str
) -> None:
    formed = [Pair("d", "p", "falling down", "c0", "c1", 1.0)] * pairs
    settings = TrainSettings.model_validate(settings_of(objective))
    lacking = settings.algorithm.lacking(examples(*rows), formed, settings.label)
    assert lacking.startswith(said)
    assert bool(lacking) == bool(said)


@pytest.mark.slow
def test_every_new_objective_plays_a_round_and_says_what_it_did(tiny: Tiny) -> None:
    for objective in ("unfiltered", "nft", "kto-anchor"):
        summary = play(tiny, f"finetune.objective={objective}", "finetune.steps=3", "finetune.probe=2")
        assert summary["objective"] == objective
        key = summary["stages"]["finetune"]["key"]
        store = Store.open(tiny.store)
        (policy,) = store.read(key, "policies")
        assert policy.objective == objective
        manifest = store.manifest(key)
        assert manifest is not None
        assert {"last_quarter", "probe", "effective_sample_size"} <= manifest.info.keys()


@pytest.mark.slow
def test_stored_reference_errors_are_planned_before_the_training(tiny: Tiny) -> None:
    play(tiny, "finetune.steps=2")
    stored = ["finetune.fixed_noise_samples=2", "finetune.reference_errors=stored", "finetune.steps=2"]
    planned = plan_stage("finetune", begun(tiny, *stored))
    assert [unit.task for unit, _ in planned.units] == ["measure-reference"] * 3
    assert planned.more
    play(tiny, *stored)
    planned = plan_stage("finetune", begun(tiny, *stored))
    assert [(unit.task, whole) for unit, whole in planned.units][2:] == [
        ("measure-reference", True),
        ("finetune-policy", True),
    ]
    assert not planned.more


@pytest.mark.slow
def test_two_processes_train_a_policy_under_the_key_of_one(tiny: Tiny) -> None:
    settings = ("finetune.steps=2", "finetune.probe=1")
    summary = play(tiny, *settings, "finetune.processes=2")
    (policy,) = Store.open(tiny.store).read(summary["stages"]["finetune"]["key"], "policies")
    assert len(json.loads(policy.curve)) == 2
    again = play(tiny, *settings)
    assert again["stages"]["finetune"]["cached_shards"] == again["stages"]["finetune"]["shards"]
