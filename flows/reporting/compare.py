"""Before and after, clip by clip: the rows of a round's evaluation, paired and summed up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from data.records import Clip, Evaluation
from data.store import Manifest, Store
from flows.reporting.facts import Comparison, Measured, PairedClip
from tasks.summary import Change, RoundSummary

SPLIT_NAMES: Final = {"heldout": "held-out"}
_DRAWS: Final = 2000


def paired(
    store: Store, compared: Manifest | None, inputs: Sequence[Manifest], summary: RoundSummary
) -> list[PairedClip]:
    """The rows of the round's evaluation, paired by prompt and seed; none if nothing was compared.

    Args:
        store: where the rows are.
        compared: the evaluation.
        inputs: what it was computed from: clips and scores of both policies.
        summary: the round's summary.
    """
    metric, policies = summary.primary.metric, (summary.policy_before, summary.policy_after)
    if compared is None:
        return []
    clips: dict[str, Clip] = {c.clip_id: c for m in inputs for c in store.read(m.key, "clips")}
    names = summary.names
    details = {
        row.clip_id: row.detail
        for manifest in inputs
        for row in store.read(manifest.key, "scores")
        if metric in names.get((row.reward, row.reward_version), (row.reward,))
    }
    sides: tuple[dict[tuple[str, str, int], Evaluation], ...] = ({}, {})
    for row in store.read(compared.key, "evaluations"):
        for policy, side in zip(policies, sides, strict=True):
            if row.metric == metric and row.policy_id == policy:
                side[row.split, row.prompt_id, row.seed] = row
    before, after = sides
    return [
        PairedClip(
            prompt=clips[b.clip_id].prompt,
            category=b.category,
            seed=b.seed,
            before=b.value,
            after=a.value,
            clip_before=b.clip_id,
            clip_after=a.clip_id,
            path_before=clips[b.clip_id].video_path,
            path_after=clips[a.clip_id].video_path,
            note_before=_reason(details.get(b.clip_id, "")),
            note_after=_reason(details.get(a.clip_id, "")),
            split=b.split,
            prompt_id=b.prompt_id,
        )
        for b, a in ((before[key], after[key]) for key in sorted(before.keys() & after.keys()))
    ]


def _main_split(pairs: Sequence[PairedClip], summary: RoundSummary) -> str:
    """The split that decides; the others are reported apart."""
    return next((split for split in sorted({pair.split for pair in pairs}) if split not in summary.also), "")


def comparisons(pairs: Sequence[PairedClip], summary: RoundSummary) -> tuple[Comparison, ...]:
    """All of the deciding split, its categories, then the other splits."""
    main = _main_split(pairs, summary)
    held = [pair for pair in pairs if pair.split == main]
    found = [_compare(f"all {SPLIT_NAMES.get(main, main)}", held, summary.primary)] if held else []
    for category in sorted({pair.category for pair in held}):
        part = [pair for pair in held if pair.category == category]
        found.append(_compare(category, part, summary.categories.get(category)))
    for split in sorted({pair.split for pair in pairs} - {main}):
        part = [pair for pair in pairs if pair.split == split]
        found.append(_compare(f"all {SPLIT_NAMES.get(split, split)}", part, summary.also.get(split)))
    return tuple(found)


def _compare(label: str, pairs: Sequence[PairedClip], gate: Change | None) -> Comparison:
    prompts = [pair.prompt_id for pair in pairs]
    return Comparison(
        label,
        before=_measure(prompts, [pair.before for pair in pairs]),
        after=_measure(prompts, [pair.after for pair in pairs]),
        delta=gate.delta if gate else None,
        low=gate.ci_low if gate else None,
        high=gate.ci_high if gate else None,
    )


def _measure(prompts: Sequence[str], values: Sequence[float | None]) -> Measured:
    """Mean with its 95% interval, resampling prompts as the gate does: clips of one prompt are alike."""
    import numpy as np

    from models.gate import bootstrap

    held = [(prompt, value) for prompt, value in zip(prompts, values, strict=True) if value is not None]
    failed = len(values) - len(held)
    if not held:
        return Measured(None, None, None, 0, 0, failed)
    names, clusters = np.unique([prompt for prompt, _ in held], return_inverse=True)
    numbers = np.array([value for _, value in held], dtype=np.float64)
    found = bootstrap.mean(numbers, clusters.astype(np.int64), _DRAWS, 0.95, seed=0)
    return Measured(found.value, found.low, found.high, len(names), len(held), failed)


def intervals(store: Store, summary: RoundSummary) -> dict[str, tuple[float, float] | None]:
    """95% intervals of the primary metric before and after a round; None where nothing was measured.

    Args:
        store: where the round's evaluation is.
        summary: the round's summary.

    Raises:
        StoreError: the evaluation is missing or damaged.
    """
    found: dict[str, tuple[float, float] | None] = {"before": None, "after": None}
    key = summary.key_of("evaluate")
    if not summary.policy_after or key is None:
        return found
    rows: list[Evaluation] = [
        row
        for row in store.read(key, "evaluations")
        if row.metric == summary.primary.metric and row.split not in summary.also
    ]
    for when, policy in (("before", summary.policy_before), ("after", summary.policy_after)):
        own = [row for row in rows if row.policy_id == policy]
        measured = _measure([row.prompt_id for row in own], [row.value for row in own])
        if measured.low is not None and measured.high is not None:
            found[when] = measured.low, measured.high
    return found


def compared_clips(pairs: Sequence[PairedClip], summary: RoundSummary) -> list[PairedClip]:
    """The clips of the deciding split that were judged under both policies."""
    main = _main_split(pairs, summary)
    return [one for one in pairs if one.split == main and None not in (one.before, one.after)]


def _reason(detail: str) -> str:
    """The judge's reason in words, where its detail holds one."""
    return str(json.loads(detail).get("reason", "")) if detail else ""
