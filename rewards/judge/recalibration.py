"""P(yes) as people would have it: a line through its log-odds, for a question or for a clip's value.

    P' = sigmoid(intercept + slope logit(P))      Platt 1999; Guo et al. 2017, arXiv 1706.04599, section 4.1

A file of lines (`vidloop calibrate --fit`) is named by `judge.recalibration`. A question's line is taken
before the questions are combined, the value's after. What the model said stays as it was, under the versions
of the questions; the judge's version has the lines in it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from data.errors import ConfigError
from data.explain import validated
from data.json_text import parse_json
from data.keys import digest
from data.resources import find
from data.settings import Settings, setting

Floats = npt.NDArray[np.float64]
# Log-odds of 0 and 1 have no end; a judge's P(yes) in float32 is no nearer to either.
_SURE: Final = 1e-6


class Line(Settings):
    """Of log-odds: slope 1 and intercept 0 change nothing."""

    slope: float = setting(..., "Slope", "Below 1: the judge is too sure. Below 0: it says the reverse.")
    intercept: float = setting(..., "Intercept", "Above 0: it says yes too seldom.")

    def at(self, value: float) -> float:
        """The recalibrated value, in [0, 1]."""
        return float(self.all(np.array([value], np.float64))[0])

    def all(self, values: Floats) -> Floats:
        """Of many values."""
        from scipy.special import expit

        found: Floats = expit(self.intercept + self.slope * log_odds(values))
        return found


class Recalibration(Settings):
    """What a file says."""

    questions: dict[str, Line] = setting({}, "Questions", "A line for each, by the question's id.")
    value: Line | None = setting(None, "Value", "A line for the clip's value.")
    fitted: dict[str, Any] = setting({}, "Fitted", "On what, and how good it is: decides nothing.")

    def of(self, question: str | None, value: float) -> float:
        """A question's value as its line has it, or (None) the clip's; as it is where there is no line."""
        line = self.value if question is None else self.questions.get(question)
        return value if line is None else line.at(value)

    @property
    def digest(self) -> str:
        """Of what decides values."""
        return digest(self.model_dump(exclude={"fitted"}))


def load_recalibration(path: str, known: Sequence[str]) -> Recalibration:
    """The lines of a file; "": none.

    Args:
        path: from the working folder or else from the checkout.
        known: ids of the rubric's questions; laws have no line.

    Raises:
        ConfigError: the file cannot be read, is no such JSON, or names a question that the rubric has not.
    """
    if not path:
        return Recalibration()
    file = find(path)
    try:
        stat = file.stat()
        found = _load(str(file), stat.st_mtime_ns, stat.st_size)
    except OSError as error:
        raise ConfigError(
            f"judge.recalibration: {path}: {error.strerror}; `vidloop calibrate --fit {path}` writes one"
        ) from None
    strangers = sorted(set(found.questions) - set(known))
    if strangers:
        raise ConfigError(
            f"judge.recalibration: {path} has a line for {strangers[0]!r}, which is no question of the "
            f"rubric ({', '.join(known)}): it was fitted to another one"
        )
    return found


@functools.lru_cache(maxsize=16)
def _load(file: str, changed_ns: int, size: int) -> Recalibration:
    """Cached by what the file system says of the file: versions are asked for often."""
    try:
        tree = parse_json(Path(file).read_bytes())
    except ValueError as error:
        raise ConfigError(f"judge.recalibration: {file}: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"judge.recalibration: {file}: expected an object with questions and value")
    return validated(Recalibration, tree, f"recalibration {file}")


def log_odds(values: Floats) -> Floats:
    """log(p / (1 - p)), of what lies short of 0 and 1."""
    inside = np.clip(values, _SURE, 1 - _SURE)
    return np.log(inside) - np.log1p(-inside)


def fit(values: Floats, labels: npt.NDArray[np.bool_]) -> Line:
    """The line of most likelihood.

    The labels are Platt's: of n that are yes a yes is (n + 1) / (n + 2), so that a judge that makes no
    mistake gets a line that ends.

    Args:
        values: [n] in [0, 1].
        labels: [n], of both kinds.
    """
    from scipy.optimize import minimize

    yes, no = int(labels.sum()), int((~labels).sum())
    target = np.where(labels, (yes + 1) / (yes + 2), 1 / (no + 2))
    x = log_odds(values)

    def loss(line: Floats) -> tuple[float, Floats]:
        z = line[0] * x + line[1]
        off = 1 / (1 + np.exp(-z)) - target
        return float((np.logaddexp(0, z) - target * z).mean()), np.array([(off * x).mean(), off.mean()])

    found = minimize(loss, np.array([1.0, 0.0]), jac=True, method="BFGS").x
    return Line(slope=float(found[0]), intercept=float(found[1]))


def log_loss(values: Floats, labels: npt.NDArray[np.bool_]) -> float:
    """Mean of -log of what was said of what was so; 0 at best, log 2 of a coin."""
    return float(np.logaddexp(0, np.where(labels, -1, 1) * log_odds(values)).mean())


def brier(values: Floats, labels: npt.NDArray[np.bool_]) -> float:
    """Mean squared distance between what was said and what was so (Brier 1950); 0 at best, 1/4 of a coin."""
    return float(((values - labels) ** 2).mean())
