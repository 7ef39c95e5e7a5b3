"""Stored reference errors through the store: shared by objectives and betas, and the same adapter as without."""

from __future__ import annotations

import json
from typing import Any

from data.store import Store
from tests.tiny_round import Tiny, cached, play

STORED = ("finetune.fixed_noise_samples=3", "finetune.reference_errors=stored", "finetune.batch_size=4")


def trained(store: Store, summary: dict[str, Any]) -> Any:
    (policy,) = store.read(summary["stages"]["finetune"]["key"], "policies")
    return policy


def test_reference_errors_are_measured_once_and_shared(tiny: Tiny) -> None:
    first = play(tiny, *STORED)
    store = Store.open(tiny.store)
    measured = store.manifests("reference")
    assert len(measured) == 3, "one unit a shard of clips: nine clips in batches of four"
    rows = [row for unit in measured for row in store.read(unit.key, "reference_errors")]
    assert len(rows) == 9 * 3
    assert {row.policy_id for row in rows} == {first["policy_before"]}
    assert cached(first)["finetune"] == (0, 4)

    other = play(tiny, *STORED, "finetune.beta=50.0", "finetune.objective=kto", "finetune.steps=3")
    assert cached(other)["finetune"] == (3, 4), "another objective and beta: the same errors"
    assert [unit.key for unit in store.manifests("reference")] == [unit.key for unit in measured]
    # A clip alone in every pass: the one order of sums that stored and inline errors share on every processor.
    alone = (
        "finetune.objective=kto",
        "finetune.fixed_noise_samples=2",
        "finetune.batch_size=4",
        "finetune.micro_batch=1",
    )
    fresh = play(tiny, *alone, "finetune.reference_errors=stored")
    assert cached(fresh)["finetune"] == (0, 4), "other draws are other errors"
    inline = play(tiny, *alone)
    assert trained(store, inline).adapter_sha256 == trained(store, fresh).adapter_sha256
    curves = [json.loads(trained(store, one).curve) for one in (inline, fresh)]
    # How far the predictions lie apart is known only where the reference is run.
    apart = [step.pop("kl") for step in curves[0]]
    assert apart[0] == 0
    assert curves[0] == curves[1]


def test_objectives_that_compare_no_errors_measure_none(tiny: Tiny) -> None:
    summary = play(tiny, *STORED, "finetune.objective=sft", "finetune.steps=2")
    assert cached(summary)["finetune"] == (0, 1)
    assert Store.open(tiny.store).manifests("reference") == []
