"""How sure are we of what raters say, when both they and the prompts are a few of many?

Votes are crossed: one rater answers many prompts, one prompt has many raters. An interval that resamples
prompts alone says what these very raters would say of other prompts. So prompts and raters are drawn anew,
independently, and a vote counts as often as its prompt times as often as its rater was drawn: the pigeonhole
bootstrap (Owen 2007, The Annals of Applied Statistics 1(2), 386-411, arXiv 0712.1111), percentile interval.
It errs on the wide side where raters differ little.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from models.gate.intervals import FEWEST, Floats, Interval

DRAWS: Final = 10_000
FEWEST_RATERS: Final = 3
"""Raters that an interval needs: of two, half of all draws are of one alone."""
_SEED: Final = 0


def mean(values: Floats, prompts: Sequence[str], raters: Sequence[str], confidence: float) -> Interval:
    """Mean of votes, and an interval that holds for other prompts and other raters of their kind.

    Args:
        values: [n] finite, n >= 1.
        prompts, raters: [n], whose each is.
        confidence: for example 0.95.
    """
    prompt_names, prompt = np.unique(prompts, return_inverse=True)
    rater_names, rater = np.unique(raters, return_inverse=True)
    shape = len(prompt_names), len(rater_names)
    totals, counts = np.zeros(shape), np.zeros(shape)
    np.add.at(totals, (prompt, rater), values)
    np.add.at(counts, (prompt, rater), 1.0)
    estimate = float(values.mean())
    if shape[0] < FEWEST or shape[1] < FEWEST_RATERS:
        lacking = f"{shape[0]} prompts and {shape[1]} raters: {FEWEST} and {FEWEST_RATERS} are needed"
        return Interval(estimate, lacking=lacking)
    if not np.any(values - values[0]):
        return Interval(estimate, lacking="all votes are the same")
    random = np.random.default_rng(_SEED)
    drawn = [random.multinomial(count, np.full(count, 1 / count), DRAWS) for count in shape]
    weights = ((drawn[0] @ counts) * drawn[1]).sum(1)
    sums = ((drawn[0] @ totals) * drawn[1]).sum(1)
    # Where few have answered everything, a draw may have no vote at all.
    means = sums[weights > 0] / weights[weights > 0]
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(estimate, float(low), float(high))
