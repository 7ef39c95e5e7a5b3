"""Answers of rewards: as rows of table `scores`, and back; those of unfinished shards are kept.

A shard that cannot be finished keeps what was answered, so that nothing is asked twice. These are units of
their own, numbered, each with the answers that came since the one before: nothing is ever rewritten, and a
crash leaves what was there. When the shard is whole they are forgotten.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from data.keys import digest
from data.records import Score
from data.store import Store
from rewards import Judgement, Part, RewardRef
from tasks import fingerprints
from tasks.units import holds

UNFINISHED = "score-unfinished"


def score_row(clip_id: str, reward: RewardRef | Part, judgement: Judgement) -> Score:
    """The row of one clip by one reward, or part of one."""
    return Score(
        clip_id=clip_id,
        reward=reward.kind,
        reward_version=reward.version,
        value=judgement.value,
        status="ok" if judgement.error is None else "failed",
        error=judgement.error,
        detail=json.dumps(judgement.detail, sort_keys=True, allow_nan=False),
    )


def read(store: Store, key: str) -> dict[str, Judgement]:
    """The judgements of a unit by clip id. Whether asking again may help stands in its `info`."""
    rows: list[Score] = store.read(key, "scores")
    return {row.clip_id: Judgement(row.value, json.loads(row.detail), row.error) for row in rows}


def kept(store: Store, part: Part, clips_digest: str) -> dict[str, Judgement]:
    """What was answered so far of an unfinished shard, by clip id."""
    keys = _keys(store, part, clips_digest)
    return {clip: judgement for key in keys for clip, judgement in read(store, key).items()}


def keep(
    store: Store, part: Part, clips_digest: str, clips_key: str, judged: Mapping[str, Judgement]
) -> None:
    """Keep the answers that are not kept yet; judgements without a value are not worth keeping."""
    before = kept(store, part, clips_digest)
    rows = [
        score_row(clip, part, judgement)
        for clip, judgement in judged.items()
        if judgement.value is not None and clip not in before
    ]
    if rows:
        question = _question(part, clips_digest, len(_keys(store, part, clips_digest)))
        store.commit(UNFINISHED, question, {"scores": rows}, parents=[clips_key], info={"clips": len(rows)})


def forget(store: Store, part: Part, clips_digest: str) -> None:
    """The shard is whole: its answers stand elsewhere."""
    # From the last, so that a crash in between leaves no gap behind which one would lie unseen.
    for key in reversed(_keys(store, part, clips_digest)):
        store.discard(key)


def _keys(store: Store, part: Part, clips_digest: str) -> list[str]:
    keys: list[str] = []
    while holds(store, key := digest(_question(part, clips_digest, len(keys))), "unfinished answers"):
        keys.append(key)
    return keys


def _question(part: Part, clips_digest: str, place: int) -> dict[str, Any]:
    return fingerprints.score(part, clips_digest) | {"stage": UNFINISHED, "place": place}
