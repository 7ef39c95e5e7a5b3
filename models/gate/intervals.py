"""How sure are we of a mean, a difference, a ratio? Student's t over clusters.

Clips of one prompt are alike, so prompts are what varies: an estimate is a ratio of sums over prompts, its
error the spread of the prompts' residuals (Cochran 1977, Sampling Techniques, chapter 6), and t with
prompts - 1 degrees of freedom makes the interval as wide as few prompts deserve. Where one could not hold its
level there is none: below `FEWEST` prompts, or where no clip differs.
`benchmarks/gate.py` measures the level. Sums go term by term: the same digits on every processor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FEWEST: Final = 4
"""Prompts that an interval needs."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its interval.

    Attributes:
        value: the estimate.
        low, high: the ends; None where there is no interval.
        lacking: why there is none; empty where there is one.
    """

    value: float
    low: float | None = None
    high: float | None = None
    lacking: str = ""


def mean(values: Floats, clusters: Ints, confidence: float) -> Interval:
    """Mean of `values`; pass after - before for a paired difference.

    Args:
        values: [n] finite, n >= 1.
        clusters: [n], which cluster (prompt) each belongs to, any integers.
        confidence: for example 0.95.
    """
    totals, counts = _by_cluster(clusters, values, np.ones_like(values))
    estimate = _sum(totals) / len(values)
    if lacking := _few(len(totals)):
        return Interval(estimate, lacking=lacking)
    if not np.any(totals):
        return Interval(estimate, lacking="on no prompt is there a difference")
    if not np.any(values - values[0]):
        # All agree, and have no spread: as if one prompt more did not.
        totals, counts = np.append(totals, 0.0), np.append(counts, len(values) / len(counts))
    half = _half_width((totals - estimate * counts) / (_sum(counts) / len(counts)), confidence)
    return Interval(estimate, estimate - half, estimate + half)


def ratio(after: Floats, before: Floats, clusters: Ints, confidence: float) -> Interval:
    """mean(after) / mean(before) of paired values that are not negative; its interval is symmetric in logs.

    Args:
        after, before: [n] finite, n >= 1, not negative.
        clusters, confidence: see `mean`.

    Raises:
        ValueError: mean(before) is not above 0, so there is no ratio.
    """
    above, below = _by_cluster(clusters, after, before)
    whole = _sum(below)
    if not whole > 0:
        raise ValueError("the mean before is not above 0: there is no ratio")
    estimate = _sum(above) / whole
    if lacking := _few(len(above)):
        return Interval(estimate, lacking=lacking)
    if estimate == 0:
        return Interval(0.0, 0.0, 0.0)
    spread = math.exp(_half_width((above - estimate * below) / (estimate * whole / len(below)), confidence))
    return Interval(estimate, estimate / spread, estimate * spread)


def _by_cluster(clusters: Ints, *columns: Floats) -> tuple[Floats, ...]:
    _, row = np.unique(clusters, return_inverse=True)
    return tuple(np.bincount(row, weights=column).astype(np.float64) for column in columns)


def quantile(freedom: int, confidence: float) -> float:
    """Student's t: how many errors an interval reaches to either side.

    Args:
        freedom: degrees of freedom, clusters - 1.
        confidence: for example 0.95.
    """
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + confidence) / 2))


def _half_width(residuals: Floats, confidence: float) -> float:
    prompts = len(residuals)
    error = math.sqrt(_sum(residuals * residuals) / (prompts * (prompts - 1)))
    return quantile(prompts - 1, confidence) * error


def _few(prompts: int) -> str:
    return f"{FEWEST} prompts would give one, there are {prompts}" if prompts < FEWEST else ""


def _sum(values: Floats) -> float:
    """From the first to the last: a running sum leaves no kernel a choice."""
    return float(np.cumsum(values)[-1])
