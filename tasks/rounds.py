"""Rounds: the folder of a round, its summary, and the champion's crown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from data.errors import StoreError
from data.store import Store
from tasks import evaluate, finetune, score
from tasks.context import RoundContext
from tasks.failures import failures
from tasks.promotion import Answer, Promotion, answered, conclude
from tasks.stages import STAGES
from tasks.summary import Findings, RewardSummary, RoundSummary, StageSummary
from tasks.units import StageResult

SUMMARY: Final = "summary.json"
RECIPE: Final = "recipe.json"


def finish(
    context: RoundContext, results: Mapping[str, StageResult], promotion: Promotion = "at once"
) -> RoundSummary:
    """Crown the candidate if the gate says so, write the summary, and return it.

    Args:
        context: the round.
        results: of its stages.
        promotion: what a gate that lets the candidate through leads to.

    Raises:
        StageFailed: the evaluation is not in the store.
        StoreError: the store cannot be written, or the evaluation is damaged.
    """
    candidate = finetune.candidate(context)
    summary = _summary(
        context, results, evaluate.findings(context), candidate.policy_id if candidate else None
    )
    summary = summary.changed(failures=failures(context) or None)
    if summary.promoted:
        summary = conclude(context, summary, promotion)
    return write_summary(context.store, summary)


def settle(context: RoundContext, answer: Answer | None) -> RoundSummary:
    """End a round that waited for a person: crown its candidate or not, say so in the summary, return it.

    Args:
        context: a round that was finished with promotion "asked".
        answer: the person's; None: nobody answered in time.

    Raises:
        StoreError: the round waits for nobody, its evaluation is not in the store, or the store cannot be
            written.
    """
    summary = read_summary(context.store, context.run_id)
    if summary.approval is None:
        raise StoreError(f"round {context.run_id} waits for nobody")
    if summary.approval.answer is not None:
        return summary
    gate = evaluate.findings(context).verdict
    return write_summary(context.store, answered(context, summary.changed(verdict=gate), answer))


def give_up(
    context: RoundContext, results: Mapping[str, StageResult], stage: str, error: BaseException
) -> None:
    """Write the summary of a round that ended early: what was done, and why it did not go on."""
    reason = f"stage {stage} did not finish: {' '.join(str(error).split()) or type(error).__name__}"
    found = Findings.model_validate(evaluate.nothing_learned(context.evaluate, reason))
    failed = {stage: StageResult(stage, "", shards=1, failed=1)}
    write_summary(
        context.store, _summary(context, {**results, **failed}, found.changed(verdict=reason), None)
    )


def finished(store: Store) -> list[str]:
    """Ids of the rounds that have a summary, the oldest first."""
    return [path.split("/")[1] for path in store.find(f"rounds/*/{SUMMARY}")]


def read_summary(store: Store, round_id: str) -> RoundSummary:
    """A round's summary. Raises StoreError if it cannot be read, or is not that round's."""
    path = f"rounds/{round_id}/{SUMMARY}"
    try:
        return parsed(store.read_file(path), round_id)
    except (OSError, ValueError) as error:
        raise StoreError(
            f"cannot read {store.where(path)} ({error}): run the round again to write a new one, or "
            f"`{store.heal_command}` sets it aside"
        ) from error


def parsed(content: bytes, round_id: str) -> RoundSummary:
    """A summary as `write_summary` wrote it. Raises ValueError: it is none, or another round's."""
    summary = RoundSummary.model_validate_json(content)
    if summary.round != round_id:
        raise ValueError("it is not the summary of this round")
    return summary


def write_summary(store: Store, summary: RoundSummary) -> RoundSummary:
    """Write `summary.json`, in one step, and return it. Raises StoreError if the store cannot be written."""
    text = json.dumps(summary.model_dump(), indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    store.write_file(f"rounds/{summary.round}/{SUMMARY}", text.encode())
    return summary


def _summary(
    context: RoundContext, results: Mapping[str, StageResult], found: Findings, after: str | None
) -> RoundSummary:
    return RoundSummary(
        round=context.run_id,
        recipe=context.recipe,
        recipe_name=context.name,
        feedback=context.recipe["feedback"],
        rewards={name: RewardSummary.of(reward) for name, reward in score.named(context).items()},
        objective=context.finetune.label,
        policy_before=context.policy.policy_id,
        policy_after=after,
        untraced=list(context.untraced) or None,
        stages={stage: StageSummary.of(results.get(stage)) for stage in STAGES},
        **dict(found),
    )
