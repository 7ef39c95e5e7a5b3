"""Best-of-N policies beside the two that are compared: the gate's statistics of them, and their cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from data.records import Choice, Clip, Evaluation
from data.store import Store
from models.gate.settings import GateSettings
from models.gate.verdict import compare, decide, pair_up
from tasks.context import Baseline, EvaluationPlan, PolicyRef, Sampled
from tasks.units import Inputs

Rows = Sequence[Evaluation]


def sampled(one: Baseline, candidate: PolicyRef, settings: EvaluationPlan) -> Sampled:
    """The clips of a baseline: the primary split's."""
    return Sampled(one.policy or candidate, dict(settings.jobs)[settings.primary], one.best_of)


def seeds(store: Store, clips: Inputs) -> dict[str, int]:
    """The seed that each chosen clip stands for, by clip id; empty where nothing was chosen."""
    chosen: list[Choice] = [row for key in clips.keys for row in store.read(key, "choices")]
    return {row.clip_id: row.seed for row in chosen if row.kept}


def found(
    store: Store,
    one: Baseline,
    rows: Mapping[str, Rows],
    policies: tuple[str, str, Sampled],
    clips: Inputs,
    settings: EvaluationPlan,
    gate: GateSettings,
) -> dict[str, Any]:
    """What `tasks.summary.BaselineFinding` says of a baseline that was measured.

    Args:
        rows: measurements on the primary split by policy.
        policies: ids of the policy before and of the candidate, and the baseline.
        clips: the baseline's choices.
    """
    before, after, own = policies
    metric, measured = settings.metric.name, rows[own.policy_id]
    guards = [pair_up(rows[before], measured, name) for name in settings.guards]
    against = pair_up(rows[before], measured, metric)
    verdict = decide(against, guards, gate, settings.within)
    return {
        **_named(one, own),
        "primary": dataclasses.asdict(verdict.primary),
        "candidate": dataclasses.asdict(compare(pair_up(measured, rows[after], metric), gate)),
        "guards": {name: dataclasses.asdict(guard) for name, guard in verdict.guards.items()},
        **_cost(store, one, clips),
    }


def unmeasured(one: Baseline, settings: EvaluationPlan, reason: str) -> dict[str, Any]:
    """The same of one that was not: a round without a candidate compares nothing."""
    empty = {"before": None, "after": None, "delta": None, "ci_low": None, "ci_high": None, "n": 0}
    nothing = {"metric": settings.metric.name, **empty, "reason": reason}
    both = {"primary": nothing, "candidate": nothing}
    return {**_named(one, None), **both, "guards": {}, "unjudged": 0, "cost": None}


def _named(one: Baseline, own: Sampled | None) -> dict[str, Any]:
    return {
        "best_of": one.best_of.n,
        "by": one.best_of.by.name,
        "policy": own.policy_id if own is not None else None,
        "sampled": own.policy.policy_id if own is not None else None,
    }


def _cost(store: Store, one: Baseline, clips: Inputs) -> dict[str, Any]:
    """What the choice took: counted whether it was computed now or found in the store."""
    kept: list[Clip] = [row for key in clips.keys for row in store.read(key, "clips")]
    choices: list[Choice] = [row for key in clips.keys for row in store.read(key, "choices")]
    by_prompt = {clip.prompt_id: clip for clip in kept}
    parts = one.best_of.by.parts
    asked = sum(
        sum(part.applies(by_prompt[row.prompt_id].category) for part in parts) if parts else 1
        for row in choices
    )
    # A clip's row says how it was sampled. A step cache leaves passes out, and does not say how many.
    passes: int | None = sum(
        by_prompt[row.prompt_id].steps * (2 if by_prompt[row.prompt_id].guidance > 1 else 1)
        for row in choices
    )
    cached = any("fast: " in clip.sampler for clip in kept)
    cost: dict[str, Any] = {
        "kept": len(kept),
        "clips": len(choices),
        "network_evaluations": None if cached else passes,
        "judgements": asked,
    }
    if cached:
        cost["reason"] = "the step cache leaves out some of the network's passes"
    manifests = (store.manifest(key) for key in clips.keys)
    unjudged = sum(manifest.info["unjudged"] for manifest in manifests if manifest is not None)
    return {"unjudged": unjudged, "cost": cost}
