"""Store and summary.json -> facts: everything a report says is read here."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

from data.errors import StoreError
from data.store import Manifest, Store
from flows.config.rewards import taught_by
from flows.reporting import words
from flows.reporting.compare import compared_clips, comparisons, paired
from flows.reporting.facts import (
    CuratedCategory,
    Curation,
    Curve,
    Facts,
    RewardSpread,
    Step,
)
from flows.reporting.judges import QUESTION, read_judges, scores_of
from flows.reporting.paired_clips import group_clips
from models.training.diagnosis import Finding, diagnose
from tasks.rounds import read_summary
from tasks.summary import GuardFinding, RoundSummary

_ROUND_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def find_summary(store: Store, round_id: str | None) -> RoundSummary:
    """The summary of a round; of the newest one if no id is given (ids begin with the time).

    Raises:
        StoreError: there is no such round, or its summary cannot be read.
    """
    held = sorted(path.parent.name for path in store.root.glob("rounds/*/summary.json"))
    if round_id is None:
        if not held:
            raise StoreError(f"{store.root} holds no finished round to report on: run `vidloop round` first")
        round_id = held[-1]
    if not _ROUND_ID.fullmatch(round_id) or round_id not in held:
        known = f"its newest is {held[-1]}" if held else "it holds none"
        raise StoreError(f"no finished round {round_id!r} in {store.root}; {known}")
    return read_summary(store, round_id)


def read_facts(store: Store, summary: RoundSummary) -> Facts:
    """All that the report of one round says. Raises StoreError: a unit that the round names was changed."""
    curated, trained, compared = (
        _manifest(store, summary, name) for name in ("curate", "finetune", "evaluate")
    )
    clips = [m for m in parents(store, curated) if m.part("clips")]
    pairs = paired(store, compared, parents(store, compared), summary)
    return Facts(
        summary,
        comparisons=comparisons(pairs, summary),
        clips=group_clips(compared_clips(pairs, summary)),
        rewards=_rewards(store, clips, summary),
        judges=read_judges(store, clips, summary),
        curation=_curation(store, curated),
        curves=_curves(store, trained),
        findings=_findings(trained, summary.guards.get("motion")),
        lineage=_lineage(store, summary, clips, curated, trained),
    )


def _rewards(store: Store, clips: Sequence[Manifest], summary: RoundSummary) -> tuple[RewardSpread, ...]:
    """What each reward gave to the clips that were curated, also rewards that taught nothing.

    A reward of the round bears the recipe's name; one that another round asked, its kind.
    """
    names, taught = summary.names, taught_by(summary.feedback)
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    errors: dict[tuple[str, str], list[str]] = defaultdict(list)
    for score in scores_of(store, clips):
        if score.reward.startswith(QUESTION):
            continue  # the judge has a section of its own
        if score.value is None:
            errors[score.reward, score.reward_version].append(score.error or "")
        else:
            values[score.reward, score.reward_version].append(score.value)
    spreads = [
        RewardSpread(
            reward=called,
            version=asked[1],
            values=tuple(values[asked]),
            failed=len(errors[asked]),
            first_error=errors[asked][0] if errors[asked] else None,
            feedback=called == taught,
            kind=asked[0],
        )
        for asked in set(values) | set(errors)
        for called in names.get(asked, (asked[0],))
    ]
    return tuple(sorted(spreads, key=lambda one: (not one.feedback, one.reward, one.version)))


def _curation(store: Store, curated: Manifest | None) -> Curation:
    """What the curation reported (the manifest's counts), and the reasons that its rows give."""
    if curated is None:
        return Curation()
    report = curated.counts
    lines = [
        CuratedCategory(name, count["clips"], count["accepted"], count["pairs"])
        for name, count in sorted(report["by_category"].items())
    ]
    total = CuratedCategory(
        "all", report["clips"]["scored"], report["clips"]["accepted"], report["pairs"]["formed"]
    )
    reasons: dict[str, int] = defaultdict(int)
    for example in store.read(curated.key, "examples"):
        reasons[example.reason] += 1
    for error, count in report["unscored_reasons"].items():
        reasons[f"left out, no score: {error}"] += count
    prompts, pairs = report["prompts"], report["pairs"]
    return Curation(
        outcome=report["outcome"],
        categories=(*lines, total),
        reasons=tuple(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
        remarks=(
            f"{prompts['all_passed']} of {prompts['total']} prompts had only clips that passed, "
            f"{prompts['all_failed']} only clips that failed: they give no pair.",
            f"{pairs['possible']} pairs were possible, {pairs['dropped_limit']} beyond the limit per prompt. "
            f"{pairs['dropped_ties']} couples of clips were too alike in reward to be a pair."
            + _segments(pairs.get("dropped_segments")),
        ),
    )


def _segments(dropped: int | None) -> str:
    if dropped is None:
        return ""
    return f" {dropped} pairs were dropped whose chosen clip is better in no segment."


def _curves(store: Store, trained: Manifest | None) -> tuple[Curve, ...]:
    """Curves from the policy's row: a JSON list with one object of logged values per step."""
    policies = store.read(trained.key, "policies") if trained else []
    if not policies:
        return ()
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for line in json.loads(policies[0].curve):
        for name, value in line.items():
            if name != "step":
                points[name].append((line["step"], value))
    return tuple(
        Curve(name, tuple(step for step, _ in held), tuple(value for _, value in held))
        for name, held in sorted(points.items())
    )


def _findings(trained: Manifest | None, motion: GuardFinding | None) -> tuple[Finding, ...]:
    """What ails the training, in words; a lost motion is seen by the guard, not by any curve."""
    if trained is None or "last_quarter" not in trained.counts:
        return ()
    found = diagnose(trained.counts)
    if motion is not None and motion.ok is False:
        kept = words.ratio(motion.before, motion.after)
        lost = Finding("motion loss", f"The clips stand still: motion is {kept} times what it was.")
        return (lost, *found)
    return found


def _lineage(
    store: Store,
    summary: RoundSummary,
    clips: Sequence[Manifest],
    curated: Manifest | None,
    trained: Manifest | None,
) -> tuple[Step, ...]:
    steps = [Step("Policy before", summary.policy_before, "sampled the training clips")]
    if clips:
        shards = "1 shard" if len(clips) == 1 else f"{len(clips)} shards"
        detail = f"{_rows(clips, 'clips')} training clips in {shards}"
        steps.append(Step("Clips", summary.key_of("generate") or "", detail))
    if scores := summary.key_of("score"):
        steps.append(Step("Scores", scores, "every reward's judgement of those clips"))
    if curated is not None:
        examples, pairs = _rows([curated], "examples"), _rows([curated], "pairs")
        detail = f"{examples} examples and {pairs} pairs from those scores"
        steps.append(Step("Curated data", curated.key, detail))
    if trained is not None:
        for policy in store.read(trained.key, "policies"):
            detail = (
                f"LoRA of rank {policy.rank} over {policy.base_id}, "
                f"{policy.steps} steps of {policy.objective}; adapter sha256 {policy.adapter_sha256[:12]}"
            )
            steps.append(Step("Policy after", policy.policy_id, detail))
    if evaluation := summary.key_of("evaluate"):
        steps.append(Step("Evaluation", evaluation, "both policies on the same prompts and seeds"))
    steps.append(Step("Verdict", "", summary.verdict))
    return tuple(steps)


def _rows(manifests: Iterable[Manifest], table: str) -> int:
    return sum(part.rows for m in manifests for part in m.parts if part.table == table)


def _manifest(store: Store, summary: RoundSummary, stage: str) -> Manifest | None:
    """The manifest of a stage that is one unit of work; None if the round did not get there."""
    key = summary.key_of(stage)
    return store.manifest(key) if key else None


def parents(store: Store, manifest: Manifest | None) -> list[Manifest]:
    """The units that `manifest` was computed from. Raises StoreError if one is no longer there."""
    found = []
    for key in manifest.parents if manifest else ():
        parent = store.manifest(key)
        if parent is None:
            raise StoreError(f"{store.root} no longer holds unit {key}: run the round again with its recipe")
        found.append(parent)
    return found
