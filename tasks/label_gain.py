"""The gain of a round's comparison, from labels of some of its clips and a judge's values of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from data.errors import ConfigError
from data.explain import nearest
from data.records import Evaluation
from data.store import Store
from rewards.few_labels import Estimate, Judged, gain
from rewards.people import NAME as PEOPLE
from rewards.people import People
from tasks.context import RewardRef
from tasks.rounds import read_summary

_RIGHT: Final = 0.5


def label_gain(
    store: Store, round_id: str, metric: str, labels: tuple[str, Mapping[str, bool]] | RewardRef
) -> tuple[str, Estimate]:
    """What labels and judgements together say of a candidate and the policy before it.

    Args:
        store: with the round.
        round_id: of a round that compared two policies.
        metric: the reward whose values help: one that the comparison measured.
        labels: their name and the label of each clip; or a reward, which is right from 0.5 on: people, or
            one that the comparison measured.

    Returns:
        (name of the labels, by how much the share with label 1 is higher after the round, over the set that
        decides).

    Raises:
        ConfigError: the round compared nothing, or did not measure that reward.
        StoreError: the store has no such round, or its comparison is damaged.
    """
    summary = read_summary(store, round_id)
    key = summary.key_of("evaluate")
    if key is None or summary.policy_after is None:
        raise ConfigError(f"round {round_id} compared no two policies: there is no gain to estimate")
    rows = [row for row in store.read(key, "evaluations") if row.split not in summary.also]
    values = _of(rows, metric, round_id)
    if not isinstance(labels, RewardRef):
        name, truth = labels[0], dict(labels[1])
    else:
        name = labels.name
        said = (
            {clip: one.value for clip, one in People(labels.settings).judgements.items()}
            if labels.kind == PEOPLE
            else {row.clip_id: row.value for row in _of(rows, name, round_id)}
        )
        truth = {clip: value >= _RIGHT for clip, value in said.items() if value is not None}
    before, after = (
        _judged([row for row in values if row.policy_id == policy], truth)
        for policy in (summary.policy_before, summary.policy_after)
    )
    return name, gain(before, after)


def _of(rows: Sequence[Evaluation], metric: str, round_id: str) -> list[Evaluation]:
    found = [row for row in rows if row.metric == metric and row.clip_id]
    if not found:
        known = sorted({row.metric for row in rows if row.clip_id})
        raise ConfigError(f"round {round_id} did not measure {metric!r}{nearest(metric, known)}")
    return found


def _judged(rows: Sequence[Evaluation], truth: Mapping[str, bool]) -> Judged:
    known = [row for row in rows if row.value is not None]
    return Judged(
        np.array([row.value for row in known], np.float64),
        np.array([truth.get(row.clip_id, np.nan) for row in known], np.float64),
        [row.prompt_id for row in known],
    )
