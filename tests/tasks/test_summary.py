"""What summary.json says: its schema, its keys in their order, and summaries of earlier releases."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from data.errors import StoreError
from data.store import Store
from tasks.rounds import read_summary, write_summary
from tasks.scrub import scrub
from tasks.summary import Approval, RoundSummary, schema
from tests.tiny_round import ROOT

MEASURED = {
    "metric": "clip",
    "before": 0.25,
    "after": 0.5,
    "delta": 0.25,
    "ci_low": 0.1,
    "ci_high": 0.4,
    "n": 8,
}
WRITTEN: dict[str, Any] = {
    "round": "r1",
    "recipe": {"name": "tiny"},
    "recipe_name": "tiny",
    "feedback": "oracle",
    "objective": "dpo",
    "policy_before": "m0",
    "policy_after": None,
    "primary": MEASURED,
    "categories": {"falling down": {**MEASURED, "prompts": 2, "excluded": 0}},
    "also": {},
    "guards": {
        "motion": {"before": 1.0, "after": 1.0, "ok": True},
        "flicker": {"before": None, "after": None, "ok": None, "reason": "no training data"},
    },
    "stages": {"generate": {"key": "k", "seconds": 1.5, "shards": 3, "cached_shards": 1, "failed": 0}},
    "verdict": "Not promoted",
    "promoted": False,
}


def test_the_schema_in_the_docs_is_that_of_the_model() -> None:
    held = (ROOT / "docs/reference/summary.schema.json").read_text("utf-8")
    assert held == schema(), "`make generated` writes it anew"


def test_every_key_says_what_it_is() -> None:
    found = json.loads(schema())
    for model in (found, *found["$defs"].values()):
        assert all(field.get("description") for field in model["properties"].values()), model["title"]


def test_what_is_written_is_what_was_read_key_by_key(store: Store) -> None:
    summary = write_summary(store, RoundSummary.model_validate(WRITTEN))
    text = store.path("rounds/r1/summary.json").read_text("utf-8")
    assert json.loads(text) == WRITTEN
    assert list(json.loads(text)) == list(WRITTEN)
    assert read_summary(store, "r1") == summary
    waits = summary.changed(approval=Approval(asked="now", answer=None, who=None, reason=None, answered=None))
    assert list(waits.model_dump()) == [*WRITTEN, "approval"]


def test_a_summary_without_what_came_later_and_one_with_what_is_to_come_are_read(store: Store) -> None:
    older = {
        key: value for key, value in WRITTEN.items() if key not in ("categories", "also", "policy_after")
    }
    assert RoundSummary.model_validate(older).compared == {}
    newer = {**WRITTEN, "carbon": 1, "primary": {**MEASURED, "sigma": 2}}
    assert RoundSummary.model_validate(newer) == RoundSummary.model_validate(WRITTEN)


@pytest.mark.parametrize(
    "broken", ["{", "[]", json.dumps(WRITTEN | {"round": "r2"}), json.dumps({"round": "r1"})]
)
def test_what_is_no_summary_is_said_to_be_none(store: Store, broken: str) -> None:
    store.write_file("rounds/r1/summary.json", broken.encode())
    with pytest.raises(StoreError, match=r"cannot read .*summary\.json"):
        read_summary(store, "r1")


def test_a_number_that_is_none_is_refused() -> None:
    with pytest.raises(ValidationError):
        RoundSummary.model_validate({**WRITTEN, "primary": {**MEASURED, "n": None}})


@pytest.mark.parametrize("content", [None, b"", b"[]", b'{"round": "r2"', b'{"round": "r2"}', b"[" * 5000])
def test_what_is_no_summary_of_its_round_is_refused_and_the_named_command_sets_it_aside(
    store: Store, content: bytes | None
) -> None:
    """None: the whole summary of another round, as a copied folder has it."""
    write_summary(store, RoundSummary.model_validate(WRITTEN))
    store.write_file("rounds/r2/summary.json", content or b"")
    if content is None:
        store.write_file("rounds/r2/summary.json", store.read_file("rounds/r1/summary.json"))
    with pytest.raises(StoreError, match=r"r2/summary\.json") as refused:
        read_summary(store, "r2")
    assert f"`{store.heal_command}` sets it aside" in str(refused.value)
    (found,) = scrub(store.backend, heal=True)
    assert found.path == "rounds/r2/summary.json"
    assert not store.has("rounds/r2/summary.json")
    assert read_summary(store, "r1").policy_before == "m0"
    assert scrub(store.backend) == []
