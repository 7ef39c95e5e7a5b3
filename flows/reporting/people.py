"""What people say of a round: how often they prefer the clip after it to the one before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from data import labels
from data.records import Label
from data.store import Store
from flows.reporting.agreement import agreement
from flows.reporting.compare import main_split
from flows.reporting.facts import PairedClip, Preference
from flows.reporting.measures import confidence
from tasks.summary import RoundSummary

_NEITHER: Final = 0.5


def read_people(store: Store, pairs: Sequence[PairedClip], summary: RoundSummary) -> tuple[Preference, ...]:
    """Votes that count on the round's pairs, question by question, other words apart; none: nobody was asked.

    Left out are skips, what was asked again, and pairs whose answer was known: those were not drawn by lot.
    """
    split = main_split(pairs, summary)
    after: dict[frozenset[str | None], PairedClip] = {
        frozenset((one.before.clip_id, one.after.clip_id)): one for one in pairs if one.split == split
    }
    asked: dict[tuple[str, str], list[Label]] = {}
    for row in labels.counted(store):
        fresh = row.value is not None and row.gold is None and row.repeat == 0
        if fresh and row.kind == "pair" and frozenset((row.clip_id, row.other_clip_id)) in after:
            asked.setdefault((row.question, row.question_version), []).append(row)
    return tuple(_of(rows, after, confidence(summary)) for _, rows in sorted(asked.items()))


def _of(
    rows: Sequence[Label], after: dict[frozenset[str | None], PairedClip], confidence: float
) -> Preference:
    import numpy as np

    from models.gate import raters

    shown = [after[frozenset((row.clip_id, row.other_clip_id))] for row in rows]
    shares = np.array(
        [
            row.value if row.clip_id == pair.after.clip_id else 1 - (row.value or 0.0)
            for row, pair in zip(rows, shown, strict=True)
        ],
        np.float64,
    )
    prompts, names = [pair.prompt_id for pair in shown], [row.rater for row in rows]
    return Preference(
        rows[0].question,
        raters.mean(shares, prompts, names, confidence),
        won=int((shares > _NEITHER).sum()),
        tied=int((shares == _NEITHER).sum()),
        lost=int((shares < _NEITHER).sum()),
        raters=len(set(names)),
        prompts=len(set(prompts)),
        agreement=agreement(rows[0].question, "pair", rows),
    )
