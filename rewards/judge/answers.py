"""From log-probabilities to a value, and from answers to one value. What is no answer stays none.

P(yes) = sum over spellings of p(yes) / (sum over spellings of p(yes) + sum of p(no))
grade  = sum over numbers k of p(k) (k - lowest) / (highest - lowest) / sum over k of p(k)

Both are the expectation of a value over the words that may answer: 1 and 0 of yes and no.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rewards.base import Judgement, failed
from rewards.judge.frames import Segment
from rewards.judge.recalibration import Recalibration
from rewards.judge.rubric import Answer, Frames, Law, Question, Rubric, Scale

# Probabilities add up to 1; a little more is the rounding of a server in 16 bit.
_LARGEST_MASS: Final = 1.001
_CONCERNED: Final = "concerned"


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
class Words:
    """The words that may answer a question.

    Attributes:
        of: by word: its value in [0, 1], and its spellings.
        named: all of them in a few words, for errors.
        min_mass: least probability of all of them together.
        scale: the scale that they are of; None: they are yes and no.
    """

    of: Mapping[str, tuple[float, Sequence[str]]]
    named: str
    min_mass: float
    scale: Scale | None = None

    @property
    def spellings(self) -> Iterator[str]:
        """Every spelling of every word."""
        return (spelling for _, some in self.of.values() for spelling in some)


def yes_or_no(answer: Answer) -> Words:
    """Yes, worth 1, and no, worth 0."""
    words = {"yes": (1.0, tuple(answer.positive)), "no": (0.0, tuple(answer.negative))}
    return Words(words, "yes and no", answer.min_mass)


def grades(scale: Scale) -> Words:
    """The numbers of a scale, the lowest worth 0 and the highest 1, with and without a blank before them."""
    span = scale.highest - scale.lowest
    words = {
        str(number): ((number - scale.lowest) / span, (str(number), f" {number}"))
        for number in range(scale.lowest, scale.highest + 1)
    }
    return Words(words, f"{scale.lowest} to {scale.highest}", scale.min_mass, scale)


def words_of(rubric: Rubric) -> Words:
    """The words that answer a rubric's questions about clips."""
    return yes_or_no(rubric.answer) if rubric.scale is None else grades(rubric.scale)


@dataclass(frozen=True)
class Probability:
    """What one question on one segment was answered.

    Attributes:
        value: P(yes) among yes and no; of a scale the expected number, as a share of the scale. In [0, 1].
        mass: probability of all words that may answer among all tokens, in [0, 1].
        logprobs: natural logarithm of the probability of each spelling that counted.
        scale: as of `Words`.
    """

    value: float
    mass: float
    logprobs: dict[str, float]
    scale: Scale | None = None


@dataclass(frozen=True, eq=False)
class Ask:
    """One question about one segment of one clip. Those about one segment should stand together.

    Attributes:
        segment: the frames.
        text: the question.
        words: that may answer it.
        sees: whether it is about the frames. False: about the prompt, by its text alone; the segment is
            there for the self-test of a server that was asked nothing before.
    """

    segment: Segment
    text: str
    words: Words
    sees: bool = True


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


def read_answer(logprobs: Mapping[str, float], words: Words) -> Probability:
    """The answer in the log-probabilities of spellings; those of no word are ignored.

    Raises:
        NoAnswer: a word has no spelling with a log-probability; or the mass of all is too small.
        Fault: a log-probability is NaN, infinite, or above 0; or all words are together likelier than 1.
    """
    for token, value in logprobs.items():
        # A little above 0 is rounding of log_softmax; of NaN no comparison is true.
        if not -math.inf < value <= 1e-4:
            raise Fault(f"the log-probability of {token!r} is {value}")
    said: dict[str, dict[str, float]] = {}
    for word, (_, spellings) in words.of.items():
        said[word] = {token: float(logprobs[token]) for token in spellings if token in logprobs}
        if not said[word]:
            raise NoAnswer(
                f"no spelling of {word} has a log-probability; there are: "
                f"{', '.join(map(repr, list(logprobs)[:8])) or 'none'}"
            )
    top = max(value for found in said.values() for value in found.values())
    shares = {word: sum(math.exp(value - top) for value in found.values()) for word, found in said.items()}
    total = sum(shares.values())
    mass = math.exp(top) * total
    if mass > _LARGEST_MASS:
        raise Fault(
            f"{words.named} have a probability of {mass:.4g} together: these are no log-probabilities"
        )
    mass = min(1.0, mass)
    if mass < words.min_mass:
        raise NoAnswer(
            f"{words.named} have a probability of {mass:.3g} together: the model wants to say else"
        )
    value = sum(words.of[word][0] * share for word, share in shares.items()) / total
    logs = {token: value for found in said.values() for token, value in found.items()}
    return Probability(value, mass, logs, words.scale)


def question_judgement(
    question: Question, frames: Frames, answers: Sequence[Probability], detail: Mapping[str, Any]
) -> Judgement:
    """One question's judgement of a clip from its answers, one a segment: value in [0, 1], 1 is good."""
    good = [answer.value if question.good == "positive" else 1.0 - answer.value for answer in answers]
    found = [kept(answer) for answer in answers]
    return Judgement(_over_segments(frames, good), {"answers": found, **detail})


def law_judgement(
    frames: Frames, answers: Sequence[Sequence[Probability]], detail: Mapping[str, Any]
) -> Judgement:
    """A law's judgement of a clip that it concerns: the mean of its questions' values, in [0, 1].

    Args:
        frames: of the rubric.
        answers: by question, and in it by segment.
        detail: to be kept with them.
    """
    values = [_over_segments(frames, [answer.value for answer in some]) for some in answers]
    asked = [
        {"value": value, "answers": [kept(answer) for answer in some]}
        for value, some in zip(values, answers, strict=True)
    ]
    return Judgement(sum(values) / len(values), {"questions": asked, **detail})


def unconcerned(law: Law, detail: Mapping[str, Any]) -> Judgement:
    """A law's judgement of a clip whose prompt it does not concern: none; nothing was asked of the clip."""
    return failed(f"not asked: law {law.id} does not concern the prompt", {_CONCERNED: False, **detail})


def is_unconcerned(detail: Mapping[str, Any]) -> bool:
    """Whether a judgement with this detail is one of `unconcerned`."""
    return detail.get(_CONCERNED) is False


def combine(
    rubric: Rubric,
    category: str,
    answers: Mapping[str, Judgement],
    lines: Recalibration = Recalibration(),  # noqa: B008  (frozen)
) -> Judgement:
    """The clip's value from its questions' and laws' judgements (by id): none may be missing or failed.

    Laws that do not concern the prompt are left out; a clip of which nothing is left has no value. `lines`
    recalibrate what questions say, and the value.

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
        if answer.value is None and not is_unconcerned(answer.detail):
            return failed(f"question {question.id}: {answer.error}", again=answer.again)
    asked = [question for question in asked if answers[question.id].value is not None]
    if not asked:
        return failed(
            f"no law of rubric {rubric.name} concerns the prompt: name its laws in the prompts file "
            "(judge.laws), or leave the prompt out"
        )
    values = {
        question.id: lines.of(question.id, float(answers[question.id].value or 0.0)) for question in asked
    }
    value = lines.of(None, _together(rubric, asked, values))
    detail: dict[str, Any] = {
        "questions": values,
        "combine": rubric.combine,
        "threshold": rubric.passes,
        "passed": None if rubric.passes is None else value >= rubric.passes,
        "lowest": min(values, key=lambda name: values[name]),
    }
    spans = answers[asked[0].id].detail.get("segments", [])
    if spans:
        by_question = {question.id: _by_segment(question, answers[question.id]) for question in asked}
        detail["segments"] = [
            [*span, lines.of(None, _together(rubric, asked, {
                name: lines.of(name, found[place]) for name, found in by_question.items()
            }))]
            for place, span in enumerate(spans)
        ]  # fmt: skip
    return Judgement(value, detail)


def _together(rubric: Rubric, asked: Sequence[Question | Law], values: Mapping[str, float]) -> float:
    """One value from those of the questions and laws, by their ids."""
    match rubric.combine:
        case "all":
            return min(values.values())
        case "mean":
            return sum(values.values()) / len(values)
        case "weighted":
            total = sum(question.weight for question in asked)
            return sum(question.weight * values[question.id] for question in asked) / total


def _over_segments(frames: Frames, values: Sequence[float]) -> float:
    return min(values) if frames.segments == "min" else sum(values) / len(values)


def _by_segment(asked: Question | Law, answer: Judgement) -> list[float]:
    """A question's, or a law's, value in each segment, 1 is good."""
    if isinstance(asked, Law):
        each = [[value_of(one) for one in question["answers"]] for question in answer.detail["questions"]]
        return [sum(values) / len(values) for values in zip(*each, strict=True)]
    found = [value_of(one) for one in answer.detail["answers"]]
    return found if asked.good == "positive" else [1.0 - value for value in found]


def kept(answer: Probability) -> dict[str, Any]:
    """An answer as plain JSON: P(yes), or the expected number of the scale (`grade`) and its share of it."""
    seen = {"mass": answer.mass, "logprobs": dict(answer.logprobs)}
    if answer.scale is None:
        return {"p_yes": answer.value, **seen}
    span = answer.scale.highest - answer.scale.lowest
    return {"grade": answer.scale.lowest + span * answer.value, "share": answer.value, **seen}


def value_of(said: Mapping[str, Any]) -> float:
    """The value in [0, 1] of an answer as it is kept: P(yes), or a grade's share of its scale."""
    return float(said["p_yes"] if "p_yes" in said else said["share"])
