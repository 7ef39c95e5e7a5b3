"""Store and summary.json -> facts: everything a report says is read here."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final

from data.errors import StoreError
from data.keys import only_one
from data.store import Manifest, Store
from flows.reporting import words
from flows.reporting.compare import compared_clips, comparisons, evaluated, manifest_of, parents
from flows.reporting.facts import Facts, Step
from flows.reporting.judges import read_judges, read_rewards, scores_of
from flows.reporting.measures import read_duels, read_measures
from flows.reporting.paired_clips import group_clips
from flows.reporting.people import read_people
from flows.reporting.seeds import alike, over
from models.training.diagnosis import Finding, diagnose
from tasks.rounds import finished, read_summary
from tasks.summary import GuardFinding, RoundSummary

_ROUND_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def find_summary(store: Store, round_id: str | None) -> RoundSummary:
    """The summary of a round; of the newest one if no id is given (ids begin with the time).

    The beginning of an id will do where no other round's begins so.

    Raises:
        StoreError: there is no such round, or its summary cannot be read.
    """
    held = finished(store)
    if round_id is None:
        if not held:
            raise StoreError(f"{store.url} holds no finished round to report on: run `vidloop round` first")
        round_id = held[-1]
    round_id = only_one(round_id, held)
    if not _ROUND_ID.fullmatch(round_id) or round_id not in held:
        known = f"its newest is {held[-1]}" if held else "it holds none"
        raise StoreError(f"no finished round {round_id!r} in {store.url}; {known}")
    return read_summary(store, round_id)


def read_facts(store: Store, summary: RoundSummary) -> Facts:
    """All that the report of one round says. Raises StoreError: a unit that the round names was changed."""
    curated, trained = (manifest_of(store, summary, name) for name in ("curate", "finetune"))
    clips = [m for m in parents(store, curated) if m.part("clips")]
    scores = scores_of(store, clips)
    pairs = evaluated(store, summary)
    return Facts(
        summary,
        comparisons=comparisons(pairs, summary),
        measures=read_measures(store, summary),
        duels=read_duels(store, summary),
        people=read_people(store, pairs, summary),
        clips=group_clips(compared_clips(pairs, summary)),
        training={clip.clip_id: clip.category for one in clips for clip in store.read(one.key, "clips")},
        scores=scores,
        rewards=read_rewards(scores, summary),
        judges=read_judges(store, scores, summary),
        curation=_curation(store, curated),
        curves=_curves(store, trained),
        findings=_findings(trained, summary.guards.get("motion")),
        seeds=over(alike(store, summary)),
        lineage=_lineage(store, summary, clips, curated, trained),
    )


def _curation(store: Store, curated: Manifest | None) -> dict[str, Any]:
    """What the curation reported (the manifest's counts), and the reasons that its rows give."""
    if curated is None:
        return {}
    report = curated.info
    total = {**report["clips"], "clips": report["clips"]["scored"], "pairs": report["pairs"]["formed"]}
    reasons: Counter[str] = Counter()
    for rows in store.batches([curated.key], "examples", ["reason"]):
        reasons.update({one["values"]: one["counts"] for one in rows["reason"].value_counts().to_pylist()})
    for error, count in report["unscored_reasons"].items():
        reasons[f"left out, no score: {error}"] += count
    return {
        **report,
        "categories": {**dict(sorted(report["by_category"].items())), "all": total},
        "reasons": sorted(reasons.items(), key=lambda item: (-item[1], item[0])),
    }


def _curves(store: Store, trained: Manifest | None) -> dict[str, list[tuple[float, float]]]:
    """Curves from the policy's row: a JSON list with one object of logged values per step."""
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for policy in store.read(trained.key, "policies")[:1] if trained else ():
        for line in json.loads(policy.curve):
            step = line.pop("step", None)
            for name, value in line.items():
                points[name].append((step, value))
    return points


def _findings(trained: Manifest | None, motion: GuardFinding | None) -> tuple[Finding, ...]:
    """What ails the training, in words; a lost motion is seen by the guard, not by any curve."""
    if trained is None or "last_quarter" not in trained.info:
        return ()
    found = diagnose(trained.info)
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
