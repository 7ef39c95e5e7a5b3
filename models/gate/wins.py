"""How often one policy's clip is better than another's for the same prompt and seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.gate import intervals
from models.gate.verdict import Paired


@dataclass(frozen=True, slots=True)
class Wins:
    """Pairs of clips that were won, tied and lost.

    Attributes:
        rate: share of pairs that were won; a tie counts one half. In [0, 1]; None where nothing was measured.
        low, high: its interval; None where there is none.
        won, tied, lost: pairs of clips.
        prompts: that they belong to.
        no_interval: why there is none; None where there is one.
    """

    rate: float | None
    low: float | None
    high: float | None
    won: int
    tied: int
    lost: int
    prompts: int
    no_interval: str | None = None


def wins(paired: Paired, confidence: float) -> Wins:
    """How often the second policy's clip has the higher value.

    The interval is that of a mean over clustered pairs (Student's t over prompts, `intervals.mean`), cut at 0
    and 1.

    Args:
        paired: one metric, of which more is better; pairs with a failed measurement are left out.
        confidence: for example 0.95.
    """
    rows = paired.measured()
    if not rows.prompts:
        return Wins(None, None, None, 0, 0, 0, 0, "nothing was measured under both policies")
    signs = np.sign(rows.after - rows.before)
    # A half is no difference, as 0 is for a gain: where all tie there is no interval.
    found = intervals.mean(signs / 2, rows.clusters(), confidence)
    low, high = (None if end is None else min(max(0.5 + end, 0.0), 1.0) for end in (found.low, found.high))
    won, tied, lost = (int((signs == sign).sum()) for sign in (1, 0, -1))
    prompts = len(set(rows.prompts))
    return Wins(0.5 + found.value, low, high, won, tied, lost, prompts, found.lacking or None)
