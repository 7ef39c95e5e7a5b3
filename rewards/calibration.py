"""How good a judge is: its values against labels, as figures that a person can act on.

A threshold says what passes; AUC says how well values rank (1 right, 0.5 a coin), whatever the threshold; the
expected calibration error says how far P(yes) is from the share that is right among clips of like P (Guo et
al., 2017, arXiv 1706.04599, eq. 3, ten bins of equal width).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
# Who reads figures from a file is held to these bounds; more clips than that nobody has.
Count = Annotated[int, Field(ge=0, le=10**12)]
Share = Annotated[float, Field(ge=0, le=1)]

BINS = 10


@dataclass(frozen=True)
class Figures:
    """Figures of one group of clips; None where a group has too little to say.

    Attributes:
        n: clips with a value and a label.
        failed: clips without a value.
        positives: share of labels that are 1.
        passed: share of values that reach the threshold.
        accuracy: share of clips on which judge and label agree.
        precision: of the clips that pass, the share with label 1.
        recall: of the clips with label 1, the share that passes.
        specificity: of the clips with label 0, the share that does not pass.
        auc: P(value of a positive > value of a negative), ties half.
        ece: expected calibration error, for values that are probabilities.
    """

    n: Count
    failed: Count
    positives: Share | None
    passed: Share | None
    accuracy: Share | None
    precision: Share | None
    recall: Share | None
    specificity: Share | None
    auc: Share | None
    ece: Share | None


@dataclass(frozen=True)
class Bin:
    """One bin of the reliability plot: clips with a value in [low, high), their mean value and share of 1."""

    low: Share
    high: Share
    n: Count
    value: Share | None
    share: Share | None


def figures(
    values: Sequence[float | None], labels: Sequence[bool], threshold: float, probability: bool = True
) -> Figures:
    """Figures of a group.

    Args:
        values: the judge's, None where it failed: those count as failed and as nothing else.
        labels: the truth.
        threshold: value from which a clip passes.
        probability: whether values are probabilities, so that an ECE means something.
    """
    judged = [(value, label) for value, label in zip(values, labels, strict=True) if value is not None]
    failed = len(labels) - len(judged)
    if not judged:
        return Figures(0, failed, *[None] * 8)
    value = np.array([pair[0] for pair in judged], np.float64)
    label = np.array([pair[1] for pair in judged], np.bool_)
    passed = value >= threshold
    return Figures(
        n=len(value),
        failed=failed,
        positives=float(label.mean()),
        passed=float(passed.mean()),
        accuracy=float((passed == label).mean()),
        precision=_mean(label[passed]),
        recall=_mean(passed[label]),
        specificity=_mean(~passed[~label]),
        auc=auc(value, label),
        ece=expected_calibration_error(value, label) if probability else None,
    )


def auc(value: Floats, label: Bools) -> float | None:
    """Area under the ROC curve, by ranks; None if all labels are the same."""
    positive, negative = int(label.sum()), int((~label).sum())
    if not positive or not negative:
        return None
    _, place, count = np.unique(value, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]  # ties share the mean of their ranks
    return float((rank[label].sum() - positive * (positive + 1) / 2) / (positive * negative))


def reliability(value: Floats, label: Bools, bins: int = BINS) -> list[Bin]:
    """Bins of equal width over [0, 1]; 1.0 belongs to the last."""
    place = np.minimum((value * bins).astype(int), bins - 1)
    found = []
    for index in range(bins):
        at = place == index
        low, high = index / bins, (index + 1) / bins
        found.append(Bin(low, high, int(at.sum()), _mean(value[at]), _mean(label[at])))
    return found


def expected_calibration_error(value: Floats, label: Bools) -> float:
    """Mean over clips of |mean value - share of 1| of the clip's bin."""
    gaps = [
        one.n * abs((one.value or 0.0) - (one.share or 0.0)) for one in reliability(value, label) if one.n
    ]
    return float(sum(gaps) / len(value))


def _mean(found: Floats | Bools) -> float | None:
    return float(found.mean()) if len(found) else None
