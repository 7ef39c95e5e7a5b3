"""Clips that were judged anew: how a test decides who is the better policy, with everything else real."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from data.keys import digest
from data.records import Score
from tasks import fingerprints
from tasks.context import RoundContext
from tasks.evaluate import Side


def rejudge(
    context: RoundContext, sides: Iterable[Side], value: Mapping[str, float], but: Collection[str] = ()
) -> None:
    """Give every clip of a comparison the score of its policy, `value` by policy id; not those of keys `but`.

    A policy has one score for all its clips, and the comparison is to be computed anew.
    """
    metric, store = context.evaluate.metric, context.store
    for side in sides:
        for clips_key, clips_digest in zip(*side.clips, strict=True):
            if clips_key in but:
                continue
            question = fingerprints.score(metric, clips_digest)
            store.discard(digest(question))
            given = value[side.policy_id]
            rows = [
                Score(clip.clip_id, metric.name, metric.version, given, "ok", None, "{}")
                for clip in store.read(clips_key, "clips")
            ]
            store.commit("score", question, {"scores": rows}, info={"clips": len(rows), "failed": 0})
