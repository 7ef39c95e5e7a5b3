"""Before and after, clip by clip: the rows of a round's evaluation, paired and summed up."""

from __future__ import annotations

import json
from collections.abc import Sequence

from data import lineage
from data.errors import StoreError
from data.records import Clip
from data.store import Manifest, Store
from flows.reporting.facts import Comparison, Measured, PairedClip, Seen
from flows.reporting.words import set_name
from tasks.summary import Change, RoundSummary


def evaluated(store: Store, summary: RoundSummary) -> list[PairedClip]:
    """The rows of the round's evaluation, paired by prompt and seed; none if nothing was compared.

    Raises:
        StoreError: rows, or units that they were computed from, are missing or were changed.
    """
    compared = manifest_of(store, summary, "evaluate")
    if compared is None or not summary.policy_after:
        return []
    metric, names, inputs = summary.primary.metric, summary.names, parents(store, compared)
    clips: dict[str, Clip] = {c.clip_id: c for m in inputs for c in store.read(m.key, "clips")}
    details = {
        row.clip_id: row.detail
        for manifest in inputs
        for row in store.read(manifest.key, "scores")
        if metric in names.get((row.reward, row.reward_version), (row.reward,))
    }
    rows = [row for row in store.read(compared.key, "evaluations") if row.metric == metric]
    before, after = (
        {
            (row.split, row.prompt_id, row.seed): Seen(
                row.clip_id, clips[row.clip_id].video_path, row.value, _reason(details.get(row.clip_id, ""))
            )
            for row in rows
            if row.policy_id == policy
        }
        for policy in (summary.policy_before, summary.policy_after)
    )
    return [
        PairedClip(clip.prompt, clip.category, seed, before[key], after[key], split, prompt)
        for key in sorted(before.keys() & after.keys())
        for split, prompt, seed in [key]
        for clip in [clips[before[key].clip_id]]
    ]


def manifest_of(store: Store, summary: RoundSummary, stage: str) -> Manifest | None:
    """The manifest of a stage that is one unit of work; None if the round did not get there."""
    key = summary.key_of(stage)
    return store.manifest(key) if key else None


def parents(store: Store, manifest: Manifest | None) -> list[Manifest]:
    """The units that `manifest` was computed from. Raises StoreError if one is no longer there."""
    found = []
    for key in lineage.parents(store, manifest) if manifest else ():
        parent = store.manifest(key)
        if parent is None:
            raise StoreError(f"{store.url} no longer holds unit {key}: run the round again with its recipe")
        found.append(parent)
    return found


def main_split(pairs: Sequence[PairedClip], summary: RoundSummary) -> str:
    """The split that decides; the others are reported apart."""
    return next((split for split in sorted({pair.split for pair in pairs}) if split not in summary.also), "")


def comparisons(pairs: Sequence[PairedClip], summary: RoundSummary) -> tuple[Comparison, ...]:
    """All of the deciding split, its categories, then the other splits."""
    main = main_split(pairs, summary)
    held = [pair for pair in pairs if pair.split == main]
    found = [_compare(f"all {set_name(summary)}", held, summary.primary)] if held else []
    for category in sorted({pair.category for pair in held}):
        part = [pair for pair in held if pair.category == category]
        found.append(_compare(category, part, summary.categories.get(category)))
    for split in sorted({pair.split for pair in pairs} - {main}):
        part = [pair for pair in pairs if pair.split == split]
        found.append(_compare(f"all {split}", part, summary.also.get(split)))
    return tuple(found)


def _compare(label: str, pairs: Sequence[PairedClip], gate: Change | None) -> Comparison:
    prompts = [pair.prompt_id for pair in pairs]
    return Comparison(
        label,
        before=_measure(prompts, [pair.before.value for pair in pairs]),
        after=_measure(prompts, [pair.after.value for pair in pairs]),
        delta=gate.delta if gate else None,
        low=gate.ci_low if gate else None,
        high=gate.ci_high if gate else None,
    )


def _measure(prompts: Sequence[str], values: Sequence[float | None]) -> Measured:
    """Mean with its 95% interval, as the gate has it: clips of one prompt are alike."""
    import numpy as np

    from models.gate.intervals import mean

    held = [(prompt, value) for prompt, value in zip(prompts, values, strict=True) if value is not None]
    failed = len(values) - len(held)
    if not held:
        return Measured(None, None, None, 0, 0, failed)
    names, clusters = np.unique([prompt for prompt, _ in held], return_inverse=True)
    numbers = np.array([value for _, value in held], dtype=np.float64)
    found = mean(numbers, clusters.astype(np.int64), 0.95)
    low, high = found.low, found.high
    if low is not None and high is not None and numbers.min() >= 0 and numbers.max() <= 1:
        low, high = max(low, 0.0), min(high, 1.0)  # a rate
    return Measured(found.value, low, high, len(names), len(held), failed)


def intervals(store: Store, summary: RoundSummary) -> dict[str, tuple[float, float] | None]:
    """95% intervals of the primary metric before and after a round; None where nothing was measured.

    Raises:
        StoreError: see `evaluated`.
    """
    found: dict[str, tuple[float, float] | None] = {"before": None, "after": None}
    for line in comparisons(evaluated(store, summary), summary)[:1]:
        for when, one in (("before", line.before), ("after", line.after)):
            if one.low is not None and one.high is not None:
                found[when] = one.low, one.high
    return found


def compared_clips(pairs: Sequence[PairedClip], summary: RoundSummary) -> list[PairedClip]:
    """The clips of the deciding split that were judged under both policies."""
    main = main_split(pairs, summary)
    return [one for one in pairs if one.split == main and None not in (one.before.value, one.after.value)]


def _reason(detail: str) -> str:
    """The judge's reason in words, where its detail holds one."""
    return str(json.loads(detail).get("reason", "")) if detail else ""
