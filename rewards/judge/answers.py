"""From log-probabilities to P(yes), and from answers to one value. What is no answer stays none.

P(yes) = sum over spellings of p(yes) / (sum over spellings of p(yes) + sum of p(no))
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rewards.base import Judgement, failed
from rewards.judge.frames import Segment
from rewards.judge.rubric import Frames, Question, Rubric

# Probabilities add up to 1; a little more is the rounding of a server in 16 bit.
_LARGEST_MASS: Final = 1.001


class Unanswered(Exception):
    """A question has no probability, and the message says why."""

    again = False
    """Whether it may have one another time."""


class NoAnswer(Unanswered):
    """The judge answered, but neither yes nor no: asking the same model again gives the same."""


class Refused(Unanswered):
    """The server will not answer this request, now or later."""


class Fault(Unanswered):
    """The judge did not do what it was asked; another time it may. `wait_s`: how long it asks us to wait."""

    again = True

    def __init__(self, message: str, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.wait_s = wait_s


@dataclass(frozen=True)
class Probability:
    """P(yes) of one question on one segment.

    Attributes:
        yes: P(yes) among yes and no, in [0, 1].
        mass: P(yes) + P(no) among all tokens, in [0, 1].
        logprobs: natural logarithm of the probability of each spelling that counted.
    """

    yes: float
    mass: float
    logprobs: dict[str, float]


@dataclass(frozen=True, eq=False)
class Ask:
    """One question about one segment of one clip. Those about one segment should stand together."""

    segment: Segment
    text: str


@dataclass(frozen=True)
class Reply:
    """What came of it: a probability, or None and why not.

    Attributes:
        error: None exactly when there is a probability.
        again: without a probability: whether asking again may help.
        tokens: of the prompt, if known.
    """

    probability: Probability | None
    error: str | None = None
    again: bool = False
    tokens: int | None = None


def p_yes(
    logprobs: Mapping[str, float], positive: Sequence[str], negative: Sequence[str], min_mass: float
) -> Probability:
    """P(yes) from the log-probabilities of spellings; those not in `positive` or `negative` are ignored.

    Raises:
        NoAnswer: no spelling of yes, or none of no, has a log-probability; or their mass is too small.
        Fault: a log-probability is NaN, infinite, or above 0; or yes and no are together likelier than 1.
    """
    for token, value in logprobs.items():
        # A little above 0 is rounding of log_softmax; of NaN no comparison is true.
        if not -math.inf < value <= 1e-4:
            raise Fault(f"the log-probability of {token!r} is {value}")
    yes = {token: float(logprobs[token]) for token in positive if token in logprobs}
    no = {token: float(logprobs[token]) for token in negative if token in logprobs}
    for name, found in (("yes", yes), ("no", no)):
        if not found:
            raise NoAnswer(
                f"no spelling of {name} has a log-probability; there are: "
                f"{', '.join(map(repr, list(logprobs)[:8])) or 'none'}"
            )
    top = max((*yes.values(), *no.values()))
    up, down = (sum(math.exp(value - top) for value in found.values()) for found in (yes, no))
    mass = math.exp(top) * (up + down)
    if mass > _LARGEST_MASS:
        raise Fault(f"yes and no have a probability of {mass:.4g} together: these are no log-probabilities")
    mass = min(1.0, mass)
    if mass < min_mass:
        raise NoAnswer(f"yes and no have a probability of {mass:.3g} together: the model wants to say else")
    return Probability(up / (up + down), mass, {**yes, **no})


def question_judgement(
    question: Question, frames: Frames, answers: Sequence[Probability], detail: Mapping[str, Any]
) -> Judgement:
    """One question's judgement of a clip from its answers, one a segment: value in [0, 1], 1 is good."""
    good = [answer.yes if question.good == "positive" else 1.0 - answer.yes for answer in answers]
    value = min(good) if frames.segments == "min" else sum(good) / len(good)
    found = [
        {"p_yes": answer.yes, "mass": answer.mass, "logprobs": dict(answer.logprobs)} for answer in answers
    ]
    return Judgement(value, {"answers": found, **detail})


def combine(rubric: Rubric, category: str, answers: Mapping[str, Judgement]) -> Judgement:
    """The clip's value from its questions' judgements (by question id): no question may be missing or failed.

    `detail` has the value of each question, the label at the rubric's threshold, and what decided; of a clip
    judged in several segments also `segments`: [start, end, value] of each, in seconds and in order, the
    value combined from the questions as the clip's is.
    """
    asked = rubric.asked_of(category)
    if not asked:
        return failed(f"rubric {rubric.name} has no question for category {category!r}")
    for question in asked:
        answer = answers.get(question.id)
        if answer is None:
            return failed(f"question {question.id} was not asked")
        if answer.value is None:
            return failed(f"question {question.id}: {answer.error}", again=answer.again)
    values = {question.id: float(answers[question.id].value or 0.0) for question in asked}
    value = _together(rubric, asked, values)
    detail: dict[str, Any] = {
        "questions": values,
        "combine": rubric.combine,
        "threshold": rubric.threshold,
        "passed": value >= rubric.threshold,
        "lowest": min(values, key=lambda name: values[name]),
    }
    spans = answers[asked[0].id].detail.get("segments", [])
    if spans:
        by_question = {question.id: _by_segment(question, answers[question.id]) for question in asked}
        detail["segments"] = [
            [*span, _together(rubric, asked, {name: found[place] for name, found in by_question.items()})]
            for place, span in enumerate(spans)
        ]
    return Judgement(value, detail)


def _together(rubric: Rubric, asked: Sequence[Question], values: Mapping[str, float]) -> float:
    """One value from those of the questions, by their ids."""
    match rubric.combine:
        case "all":
            return min(values.values())
        case "mean":
            return sum(values.values()) / len(values)
        case "weighted":
            total = sum(question.weight for question in asked)
            return sum(question.weight * values[question.id] for question in asked) / total


def _by_segment(question: Question, answer: Judgement) -> list[float]:
    """One question's value in each segment, 1 is good."""
    found = [float(one["p_yes"]) for one in answer.detail["answers"]]
    return found if question.good == "positive" else [1.0 - value for value in found]
