"""Few labels, many judgements: a rate, or the gain between two policies, that both say together.

Prediction-powered inference (Angelopoulos et al. 2023, arXiv 2301.09633) in the power-tuned form of PPI++
(arXiv 2311.01453, section 2.1): with a judge's values f of all N clips and labels Y of some,

    estimate = mean of Y over the labels + power (mean of f over all clips - mean of f over the labels)

which is right on average whatever the judge is worth: what it gets wrong is measured on the labels. The power
is the one of least variance; a judge that says nothing gets 0, and the estimate is that of the labels alone.
Means over labels are weighted by 1 / the chance that a clip had of being labelled (Hajek), so that uncertain
clips may be asked about more often (Zrnic and Candes 2024, arXiv 2403.03208); but chance it must have been:
labels of the clips that somebody liked say nothing of the others.

Clips of one prompt are alike, so the error is that of sums by prompt (as the gate's), with Student's t of the
prompts that have labels. ppi-python does more, and brings numba and statsmodels; `benchmarks/people.py`
measures that the intervals of these few lines hold their level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from data.errors import DataError

Floats = npt.NDArray[np.float64]

FEWEST: Final = 5
"""Prompts with labels that an interval needs."""
# Of a draw: the share that is spread evenly, so that no clip is without a chance. As in arXiv 2403.03208.
_EVEN: Final = 0.5


@dataclass(frozen=True, eq=False)
class Judged:
    """Clips with a judge's values, some of them with labels.

    Attributes:
        values: float64 [N], the judge's, finite.
        labels: float64 [N]; NaN: the clip has none.
        prompts: [N], which prompt each clip shows.
        chances: float64 [N] in (0, 1], that the clip had of being labelled; None: all had the same.
    """

    values: Floats
    labels: Floats
    prompts: Sequence[object]
    chances: Floats | None = None


@dataclass(frozen=True)
class Estimate:
    """A rate or a gain, from labels and judgements together, and from the labels alone.

    Attributes:
        value: the estimate; None: there is none.
        low, high: ends of its interval.
        alone, alone_low, alone_high: the same by the labels alone.
        power: what share of the judge's differences is believed; 0: none.
        labels, clips: how many have a label, and a value.
        worth: as many labels alone would give an interval as narrow.
        lacking: why there is none; "" where there is one.
    """

    value: float | None
    low: float | None
    high: float | None
    alone: float | None
    alone_low: float | None
    alone_high: float | None
    power: float | None
    labels: int
    clips: int
    worth: float | None
    lacking: str = ""


def rate(judged: Judged, confidence: float = 0.95) -> Estimate:
    """The mean of the labels that all clips would have."""
    return _estimate([(judged, 1.0)], confidence)


def gain(before: Judged, after: Judged, confidence: float = 0.95) -> Estimate:
    """By how much that mean is higher of the clips `after`; prompts of both are the same ones."""
    return _estimate([(after, 1.0), (before, -1.0)], confidence)


def draw(values: Floats, budget: int, rng: np.random.Generator) -> tuple[npt.NDArray[np.int64], Floats]:
    """Which clips to label next: uncertain ones first, and each with a known chance.

    Args:
        values: float64 [N], P(yes), each in [0, 1].
        budget: how many, at most N.
        rng: of the draw.

    Returns:
        (places of the drawn clips, rising; float64 [N], the chance that each clip had).

    Raises:
        DataError: there are not so many clips.
    """
    if not 0 <= budget <= len(values):
        raise DataError(f"{budget} clips to label, and there are {len(values)}")
    doubt = np.sqrt(np.clip(values * (1 - values), 0.0, 0.25))
    even = np.full(len(values), 1 / max(1, len(values)))
    wanted = _EVEN * even + (1 - _EVEN) * (doubt / doubt.sum() if doubt.sum() else even)
    chances = _at_most_one(wanted, budget)
    # Systematic: steps of one along the chances, laid out by lot, so that exactly `budget` are drawn.
    order = rng.permutation(len(values))
    ends = np.cumsum(chances[order])
    marks = np.floor(ends + rng.random()).astype(np.int64)
    return np.sort(order[np.diff(marks, prepend=0) > 0][:budget]), chances


def _at_most_one(wanted: Floats, total: int) -> Floats:
    """Chances in proportion to what is wanted, none above 1, that add up to `total`."""
    chances = np.zeros_like(wanted)
    sure = np.zeros(len(wanted), bool)
    while True:
        left, rest = total - int(sure.sum()), wanted[~sure].sum()
        chances[sure] = 1.0
        chances[~sure] = wanted[~sure] * left / rest if rest else 0.0
        above = (chances > 1) & ~sure
        if not above.any():
            return chances
        sure |= above


def _estimate(samples: Sequence[tuple[Judged, float]], confidence: float) -> Estimate:
    from scipy.stats import t

    labelled = [~np.isnan(one.labels) for one, _ in samples]
    count, clips = sum(int(some.sum()) for some in labelled), sum(len(one.values) for one, _ in samples)
    asked = {
        prompt
        for (one, _), some in zip(samples, labelled, strict=True)
        for prompt, has in zip(one.prompts, some, strict=True) if has
    }  # fmt: skip

    def lacking(why: str, alone: float | None = None) -> Estimate:
        return Estimate(None, None, None, alone, None, None, None, count, clips, None, why)

    if not all(some.any() for some in labelled):
        return lacking("no clip has a label")
    parts = [_part(one, some) for (one, _), some in zip(samples, labelled, strict=True)]
    alone, shift = (
        sum(sign * part[i] for part, (_, sign) in zip(parts, samples, strict=True)) for i in (0, 1)
    )
    if len(asked) < FEWEST:
        return lacking(f"labels are of {len(asked)} prompts, an interval needs {FEWEST}", float(alone))
    names = {
        name: place for place, name in enumerate(dict.fromkeys(p for one, _ in samples for p in one.prompts))
    }
    label, judge = np.zeros(len(names)), np.zeros(len(names))
    for (one, sign), part in zip(samples, parts, strict=True):
        place = [names[prompt] for prompt in one.prompts]
        np.add.at(label, place, sign * part[2])
        np.add.at(judge, place, sign * part[3])
    if not np.any(np.abs(label) > 1e-12):
        return lacking(f"all {count} labels are alike", float(alone))
    power = float(-(label @ judge) / (judge @ judge)) if judge @ judge > 1e-24 else 0.0
    few = len(asked) / (len(asked) - 1)
    wide = float(t.ppf((1 + confidence) / 2, len(asked) - 1))
    spread, spread_alone = few * ((label + power * judge) ** 2).sum(), few * (label**2).sum()
    value, half, half_alone = alone + power * shift, wide * spread**0.5, wide * spread_alone**0.5
    worth = count * spread_alone / spread if spread > 0 else None
    return Estimate(
        value=float(value),
        low=float(value - half),
        high=float(value + half),
        alone=float(alone),
        alone_low=float(alone - half_alone),
        alone_high=float(alone + half_alone),
        power=power,
        labels=count,
        clips=clips,
        worth=None if worth is None else float(worth),
    )


def _part(judged: Judged, labelled: npt.NDArray[np.bool_]) -> tuple[float, float, Floats, Floats]:
    """Of one policy: mean label, how far the judge moves it, and what a clip adds to the error of each."""
    weight = labelled / (np.ones(len(labelled)) if judged.chances is None else judged.chances)
    weight = weight / weight.sum()
    known = np.where(labelled, judged.labels, 0.0)
    alone = float((weight * known).sum())
    everywhere, there = judged.values.mean(), (weight * judged.values).sum()
    label = weight * (known - alone)
    judge = (judged.values - everywhere) / len(judged.values) - weight * (judged.values - there)
    return alone, float(everywhere - there), label, judge
