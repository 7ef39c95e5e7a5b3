"""Judgements as rows of table `scores`, and back."""

from __future__ import annotations

import json

from data.records import Score
from rewards import Judgement, Part, RewardRef


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


def judgement_of(row: Score) -> Judgement:
    """The judgement that a row holds. Whether asking again may help stands in its unit's counts."""
    return Judgement(row.value, json.loads(row.detail), row.error)
