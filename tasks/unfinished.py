"""Answers of a shard that could not be finished: kept, so that none is asked for twice.

They are units of their own, numbered, each with the answers that came since the one before: nothing is ever
rewritten, and a crash leaves what was there. When the shard is whole they are forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data.keys import digest
from data.records import Score
from data.store import Store
from rewards import Judgement, Part
from tasks import fingerprints
from tasks.score_rows import judgement_of, score_row

STAGE = "score-unfinished"


def kept(store: Store, part: Part, clips_digest: str) -> dict[str, Judgement]:
    """What was answered so far, by clip id."""
    found: dict[str, Judgement] = {}
    for key in _keys(store, part, clips_digest):
        rows: list[Score] = store.read(key, "scores")
        found |= {row.clip_id: judgement_of(row) for row in rows}
    return found


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
        place = len(_keys(store, part, clips_digest))
        question = _question(part, clips_digest, place)
        store.commit(STAGE, question, {"scores": rows}, parents=[clips_key], counts={"clips": len(rows)})


def forget(store: Store, part: Part, clips_digest: str) -> None:
    """The shard is whole: its answers stand elsewhere."""
    # From the last, so that a crash in between leaves no gap behind which one would lie unseen.
    for key in reversed(_keys(store, part, clips_digest)):
        store.discard(key)


def _keys(store: Store, part: Part, clips_digest: str) -> list[str]:
    keys: list[str] = []
    while True:
        key = digest(_question(part, clips_digest, len(keys)))
        if store.verify(key, "size") is not None:
            return keys
        keys.append(key)


def _question(part: Part, clips_digest: str, place: int) -> dict[str, Any]:
    return fingerprints.score(part, clips_digest) | {"stage": STAGE, "place": place}
