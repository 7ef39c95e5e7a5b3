"""The bootstrap over two crossed kinds of clusters: how sure are we of a mean over seeds and prompts at once?

Percentile intervals (Efron and Tibshirani 1993, chapter 13). NumPy only, and no matrix product: sums go term
by term, so equal values give an equal interval, to the last bit, on every processor.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from models.gate.intervals import Floats, Interval, Ints

# Draws are made in slices of this many table cells: 32 MB of counts, however many prompts there are.
_CELLS: Final = 1 << 22


def resampled_counts(clusters: int, draws: int, seed: int) -> Iterator[Floats]:
    """How often each cluster occurs in each draw: slices of a [draws, clusters] table."""
    rng = np.random.default_rng(seed)
    size = max(1, _CELLS // clusters)
    for start in range(0, draws, size):
        rows = min(size, draws - start)
        picked = rng.integers(clusters, size=(rows, clusters)) + clusters * np.arange(rows)[:, None]
        counts = np.bincount(picked.ravel(), minlength=rows * clusters)
        yield counts.reshape(rows, clusters).astype(np.float64)


def crossed(values: Floats, rows: Ints, columns: Ints, draws: int, confidence: float, seed: int) -> Interval:
    """Mean of `values` [n] that are alike in two ways at once: by training seed and by prompt.

    Rows and columns are resampled independently, whole, with replacement: the pigeonhole bootstrap (Owen
    2007, Annals of Applied Statistics 1(2)), which errs on the wide side. With a single row only columns are
    resampled, and the interval then says nothing about other rows.

    Args:
        values: [n] finite, n >= 1.
        rows, columns: [n], any integers: the seed and the prompt that each value belongs to.
        draws: number of bootstrap draws.
        confidence: for example 0.95.
        seed: of the draws; equal seeds give equal intervals.
    """
    estimate = float(values.mean())
    row = np.unique(rows, return_inverse=True)[1]
    column = np.unique(columns, return_inverse=True)[1]
    shape = (int(row.max()) + 1, int(column.max()) + 1)
    if shape[1] < 2:
        return Interval(estimate, lacking="a single prompt")
    cells = np.ravel_multi_index((row, column), shape)
    size = shape[0] * shape[1]
    sums = np.bincount(cells, weights=values, minlength=size).reshape(shape)
    held = np.bincount(cells, minlength=size).reshape(shape).astype(np.float64)
    drawn: list[Floats] = []
    picked = np.concatenate(list(resampled_counts(shape[0], draws, seed + 1)))
    done = 0
    for counts in resampled_counts(shape[1], draws, seed):
        lines = picked[done : done + len(counts)]
        done += len(counts)
        # Of every draw, each column's values in the rows that were drawn: [draws, columns].
        total, number = (
            _weighted_sum(counts, sum(line[:, None] * row for line, row in zip(lines.T, table, strict=True)))
            for table in (sums, held)
        )
        # A draw may miss every value where seeds have different prompts; it says nothing.
        drawn.append(total[number > 0] / number[number > 0])
    return _percentiles(estimate, np.concatenate(drawn), confidence)


def _weighted_sum(counts: Floats, values: Floats) -> Floats:
    """Sum of counts * values over clusters, [draws], from the first to the last: a running sum has no choice.

    Args:
        counts: [draws, clusters]; values: [clusters], or [draws, clusters].
    """
    last: Floats = np.cumsum(counts * values, axis=1)[:, -1]
    return last


def _percentiles(estimate: float, drawn: Floats, confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    # Draws themselves, outward, not between two of them.
    low, high = np.quantile(drawn, tail, method="lower"), np.quantile(drawn, 1 - tail, method="higher")
    return Interval(estimate, float(low), float(high))
