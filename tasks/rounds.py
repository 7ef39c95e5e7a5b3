"""Rounds: the folder of a round, its summary (a contract with scripts), and the champion's crown."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

from data.errors import StoreError
from data.keys import digest
from data.store import Store
from tasks import evaluate, finetune
from tasks.context import RoundContext
from tasks.promotion import Answer, Promotion, answered, conclude
from tasks.stages import STAGES
from tasks.units import StageResult

SUMMARY: Final = "summary.json"
RECIPE: Final = "recipe.json"
# A guard's finding as summary.json shows it: the contract's three fields, and why where there is a why.
_GUARD: Final = ("before", "after", "ok")
_PRIMARY: Final = ("metric", "before", "after", "delta", "ci_low", "ci_high", "n")


def new_round_id() -> str:
    """UTC time and a short digest, so that ids sort by time and no two runs share one."""
    now = datetime.now(UTC)
    return f"{now:%Y%m%dT%H%M%S}-{digest([now.isoformat(), os.getpid(), secrets.token_hex(8)])[:8]}"


def finish(
    context: RoundContext, results: Mapping[str, StageResult], promotion: Promotion = "at once"
) -> dict[str, Any]:
    """Crown the candidate if the gate says so, write the summary, and return it.

    Args:
        context: the round.
        results: of its stages.
        promotion: what a gate that lets the candidate through leads to.

    Raises:
        StoreError, StageFailed: the evaluation is not in the store.
        StoreError: the store cannot be written.
    """
    found = evaluate.findings(context)
    candidate = finetune.candidate(context)
    summary = _summary(context, results, found, candidate.policy_id if candidate else None)
    if found["promoted"]:
        summary |= conclude(context, found["verdict"], promotion)
    write_summary(context, summary)
    return summary


def settle(context: RoundContext, answer: Answer | None) -> dict[str, Any]:
    """End a round that waited for a person: crown its candidate or not, say so in the summary, return it.

    Args:
        context: a round that was finished with promotion "asked".
        answer: the person's; None: nobody answered in time.

    Raises:
        StoreError: the round waits for nobody, or its evaluation is not in the store.
        StoreError: the store cannot be written.
    """
    summary = read_summary(context.store, context.run_id)
    asked = summary.get("approval")
    if not asked:
        raise StoreError(f"round {context.run_id} waits for nobody")
    if asked["answer"] is None:
        summary |= answered(context, evaluate.findings(context)["verdict"], answer)
        write_summary(context, summary)
    return summary


def give_up(
    context: RoundContext, results: Mapping[str, StageResult], stage: str, error: BaseException
) -> None:
    """Write the summary of a round that ended early: what was done, and why it did not go on."""
    reason = f"stage {stage} did not finish: {' '.join(str(error).split()) or type(error).__name__}"
    unmeasured = evaluate.nothing_learned(context.evaluate, reason)
    failed = {stage: StageResult(stage, "", shards=1, failed=1)}
    summary = _summary(context, {**results, **failed}, unmeasured | {"verdict": reason}, None)
    write_summary(context, summary)


def read_summary(store: Store, round_id: str) -> dict[str, Any]:
    """A round's summary. Raises StoreError if it cannot be read."""
    path = store.path(f"rounds/{round_id}/{SUMMARY}")
    try:
        summary: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot read {path} ({error}): run the round again to write a new one") from error
    return summary


def _summary(
    context: RoundContext, results: Mapping[str, StageResult], found: Mapping[str, Any], after: str | None
) -> dict[str, Any]:
    primary = {name: found["primary"][name] for name in _PRIMARY}
    if found["primary"].get("reason"):
        primary["reason"] = found["primary"]["reason"]
    return {
        "round": context.run_id,
        "recipe": context.recipe,
        "recipe_name": context.name,
        "feedback": context.recipe["feedback"],
        "objective": context.finetune.objective,
        "policy_before": context.policy.policy_id,
        "policy_after": after,
        "primary": primary,
        "categories": found["categories"],
        "also": found["also"],
        "guards": {
            name: {field: guard[field] for field in _GUARD} | _why(guard)
            for name, guard in found["guards"].items()
        },
        "stages": {stage: _stage(results.get(stage)) for stage in STAGES},
        "verdict": found["verdict"],
        "promoted": found["promoted"],
    }


def _why(guard: Mapping[str, Any]) -> dict[str, str]:
    return {"reason": guard["reason"]} if guard.get("reason") else {}


def _stage(result: StageResult | None) -> dict[str, Any]:
    facts = asdict(result or StageResult("", ""))
    return {
        "key": facts["key"] or None,
        "seconds": round(facts["seconds"], 3),
        "shards": facts["shards"],
        "cached_shards": facts["cached_shards"],
        "failed": facts["failed"],
    }


def write_summary(context: RoundContext, summary: Mapping[str, Any]) -> None:
    """Write `summary.json`, in one step. Raises StoreError if the store cannot be written."""
    text = json.dumps(summary, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    context.store.write_file(f"rounds/{context.run_id}/{SUMMARY}", text.encode())
