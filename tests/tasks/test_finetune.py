"""Every objective through the store: what it learns from, what it says when there is nothing, what is planned."""

from __future__ import annotations

import json
from typing import Any

import pytest

from data.errors import ConfigError
from data.records import Example, Pair
from data.store import Store
from models.lora import read
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


@pytest.mark.slow
def test_a_second_round_trains_the_adapter_that_there_is_and_refuses_another_before_any_work(
    tiny: Tiny,
) -> None:
    first = play(tiny, "finetune.steps=2", "finetune.rank=2", "finetune.alpha=3")
    again = [f"policy={first['policy_after']}", "finetune.steps=2", "seed=1"]
    for asked, says in (
        (["finetune.rank=4", "finetune.alpha=3"], r"finetune\.rank is 4, but .* rank 2 .*: say finetune\.rank: 2"),
        (["finetune.rank=2", "finetune.alpha=4"], r"finetune\.alpha is 4, but .* alpha 3: say finetune\.alpha: 3"),
        (
            ["finetune.rank=2", "finetune.alpha=3", "finetune.targets=[to_q]"],
            r"finetune\.targets is \[to_q\], but .*: say finetune\.targets: \[ffn\.net\.0\.proj, ",
        ),
    ):  # fmt: skip
        before = sorted(tiny.store.rglob("*"))
        with pytest.raises(ConfigError, match=rf"{says}.*policy: base"):
            begun(tiny, *again, *asked)
        assert sorted(tiny.store.rglob("*")) == before
    family = "[to_q, to_k, to_v, to_out.0, ffn.net.0.proj, ffn.net.2]"  # what the first round did not say
    second = play(tiny, *again, "finetune.rank=2", "finetune.alpha=3", f"finetune.targets={family}")
    store = Store.open(tiny.store)
    for summary in (first, second):
        (row,) = store.read(summary["stages"]["finetune"]["key"], "policies")
        spec = read(store.read_media(row.adapter_path)).spec
        assert (row.rank, row.alpha, row.targets) == (spec.rank, spec.alpha, list(spec.targets)) == (
            2, 3.0, sorted(family[1:-1].split(", ")),
        )  # fmt: skip
