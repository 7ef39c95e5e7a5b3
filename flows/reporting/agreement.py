"""How far raters agree beyond chance, question by question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from data.labels import Kind, said
from data.records import Label

_LEVELS: Final[dict[Kind, Literal["nominal", "ordinal", "interval"]]] = {
    "yes_no": "nominal", "pair": "ordinal", "grade": "interval",
}  # fmt: skip


@dataclass(frozen=True)
class Agreement:
    """Krippendorff's alpha of one question: 1 raters agree, 0 as chance would have it; null, and why.

    Klaus Krippendorff, Content Analysis (4th edition, 2018), chapter 12; of yes and no nominal, of pairs
    ordinal (first, neither, second), of grades interval. Items whose answer is known are left out: that they
    are easy says nothing of the others. So are repetitions, skips, and raters who are excluded.
    """

    question: str
    alpha: float | None
    why: str
    votes: int
    items: int


def agreement(question: str, kind: Kind, rows: Sequence[Label]) -> Agreement:
    """Krippendorff's alpha of a question's votes, by the library of that name."""
    import krippendorff
    import numpy as np

    voted = {
        (row.rater, " ".join(sorted([row.clip_id, row.other_clip_id or ""]))): said(row)
        for row in rows
        if row.question == question and row.value is not None and row.gold is None and row.repeat == 0
    }
    raters = {name: n for n, name in enumerate(sorted({rater for rater, _ in voted}))}
    items = {name: n for n, name in enumerate(sorted({item for _, item in voted}))}
    table = np.full((len(raters), len(items)), np.nan)
    for (rater, item), value in voted.items():
        table[raters[rater], items[item]] = value
    several = int(np.sum(np.sum(~np.isnan(table), axis=0) > 1))
    if several == 0:
        return Agreement(question, None, "no item has the votes of two raters", len(voted), len(items))
    values = table[:, np.sum(~np.isnan(table), axis=0) > 1]
    if len(set(values[~np.isnan(values)].tolist())) < 2:
        return Agreement(
            question, None, "all votes are the same: what chance does is not known", len(voted), len(items)
        )
    alpha = float(krippendorff.alpha(reliability_data=table, level_of_measurement=_LEVELS[kind]))
    return Agreement(question, alpha, "", len(voted), len(items))
