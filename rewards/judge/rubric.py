"""The rubric: what a judge is asked, on which frames, and how its answers become one value. A YAML file.

A rubric is data: rewording a question asks a new question (and that one alone), changing `combine`, a weight
or the threshold asks nothing again.

    questions   put to every clip, or to those of some categories
    laws        each a few questions, put only to clips whose prompt the law concerns

An answer is yes or no, or a number of a `scale`.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from data.errors import ConfigError
from data.explain import validated
from data.keys import digest
from data.resources import find, shipped
from data.yaml_text import read_yaml

PROMPT: Final = "{prompt}"
_ID: Final = r"^[a-z][a-z0-9_-]{0,31}$"

Spellings = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Frames(_Part):
    """Which frames of a clip the judge sees, and how they reach it.

    Attributes:
        count: frames of each clip, or of each segment, evenly spaced, first and last included.
        media: "video": one video part; "images": an image part for each frame. As the model was trained.
        segment_seconds: length of the segments that a clip is cut into, each judged alone; None: no cut.
        segments: P(yes) of a clip from those of its segments: the smallest, or their mean.
    """

    count: int = Field(ge=2, le=768)
    media: Literal["video", "images"] = "video"
    segment_seconds: float | None = Field(default=None, gt=0.0)
    segments: Literal["min", "mean"] = "min"


class Answer(_Part):
    """How yes and no are spelled: their probabilities are summed over the spellings that are one token.

    Attributes:
        positive, negative: spellings, exactly as the model may begin its answer.
        min_mass: least P(yes) + P(no); below, the model would rather say something else, which is no answer.
    """

    positive: Spellings = ["yes", "Yes", "YES", " yes", " Yes"]
    negative: Spellings = ["no", "No", "NO", " no", " No"]
    min_mass: float = Field(default=0.5, ge=0.0, le=1.0)

    @model_validator(mode="after")
    def _apart(self) -> Answer:
        both = set(self.positive) & set(self.negative)
        if both:
            raise ValueError(f"{', '.join(sorted(both))} is both a positive and a negative spelling")
        return self


class Scale(_Part):
    """Whole numbers as answers. The value is their expectation by the model's probabilities, moved to 0-1.

    After G-Eval (Liu et al., 2023, arXiv 2303.16634, section 2): sum of p(k) k, here over the numbers alone
    (divided by the sum of p(k)), and so that `lowest` is 0 and `highest` 1.

    Attributes:
        lowest, highest: the numbers: digits, because that is what every tokenizer has as one token.
        min_mass: least sum of their probabilities; below, the model would rather say something else.
    """

    lowest: int = Field(ge=0, le=8)
    highest: int = Field(ge=1, le=9)
    min_mass: float = Field(default=0.5, ge=0.0, le=1.0)

    @model_validator(mode="after")
    def _rises(self) -> Scale:
        if self.lowest >= self.highest:
            raise ValueError(f"lowest ({self.lowest}) must be below highest ({self.highest})")
        return self


class Question(_Part):
    """One question. `{prompt}` in its text stands for the clip's prompt.

    Attributes:
        id: its name in rewards, reports and SQL.
        text: what is asked, after the media.
        categories: prompts' categories to which it is put; empty: all.
        weight: in `combine: weighted`.
        good: the answer that speaks for the clip; "negative" turns a value into 1 - value.
    """

    id: str = Field(pattern=_ID)
    text: str = Field(min_length=1)
    categories: list[str] = []
    weight: float = Field(default=1.0, gt=0.0)
    good: Literal["positive", "negative"] = "positive"


class Law(_Part):
    """A law of nature: questions that are put only to clips whose prompt it concerns.

    Attributes:
        id: its name in rewards, reports and SQL, and in the `laws` of prompts files.
        concerns: whether it concerns a prompt, as a yes/no question about the text alone, with `{prompt}`.
            Asked once for each prompt that no prompts file says it of (`judge.laws`).
        questions: put to the clip, in order; what speaks for the clip is yes, or the scale's upper end.
        weight: in `combine: weighted`.
    """

    id: str = Field(pattern=_ID)
    concerns: str = Field(min_length=1)
    questions: list[Annotated[str, Field(min_length=1)]] = Field(min_length=1)
    weight: float = Field(default=1.0, gt=0.0)

    @field_validator("concerns")
    @classmethod
    def _names_the_prompt(cls, text: str) -> str:
        if PROMPT not in text:
            raise ValueError(f"without {PROMPT} it asks the same of every prompt")
        return text


class Rubric(_Part):
    """A judge's questions and how their answers combine.

    Attributes:
        system: what stands before the media; the same for all questions, so that servers can cache it.
        answer: of yes/no questions, and of whether a law concerns a prompt.
        scale: answers about clips are numbers instead; None: yes or no.
        combine: "all": the smallest of the questions' values, so that the clip passes if every question does;
            "mean"; or "weighted": sum w v / sum w, over the questions and laws that apply to the clip. A
            law's value is the mean of its questions'.
        threshold: combined value from which a clip passes; None: see `passes`.
        concern_system: what stands before the question whether a law concerns a prompt.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    system: str
    frames: Frames
    answer: Answer = Answer()
    scale: Scale | None = None
    combine: Literal["all", "mean", "weighted"] = "all"
    threshold: float | None = Field(default=None, ge=0.0, le=1.0)
    questions: list[Question] = []
    concern_system: str = "You are told in words what a short video is to show. Answer yes or no."
    laws: list[Law] = []

    @model_validator(mode="after")
    def _named_once(self) -> Rubric:
        names = [asked.id for asked in self.asked]
        if not names:
            raise ValueError("questions, laws: a rubric asks something: name at least one of either")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two questions are called {', '.join(twice)}")
        return self

    @property
    def asked(self) -> list[Question | Law]:
        """Every question and every law, in order: what a judge's parts are."""
        return [*self.questions, *self.laws]

    @property
    def passes(self) -> float | None:
        """Value from which a clip passes, or None: the rubric knows none.

        Where it says none, P(yes) has a natural one: from 0.5 on yes is likelier than no. A grade has none,
        and neither has a mean over laws.
        """
        natural = 0.5 if self.gives_probabilities else None
        return natural if self.threshold is None else self.threshold

    @property
    def gives_probabilities(self) -> bool:
        """Whether values are P(yes) of questions, and not grades or shares of laws."""
        return self.scale is None and not self.laws

    def part_digest(self, asked: Question | Law) -> str:
        """Digest of all that decides a question's or a law's answers, but for the model: 64 hex digits.

        Not in it: the other questions, weights, `combine` and the threshold.
        """
        words = self.answer.model_dump() if self.scale is None else {"scale": self.scale.model_dump()}
        if isinstance(asked, Law):
            concern = [self.concern_system, asked.concerns, self.answer.model_dump()]
            return digest(["law", self.system, self.frames.model_dump(), words, concern, asked.questions])
        text = asked.model_dump(include={"text", "categories", "good"})
        said = ["question", self.system, self.frames.model_dump(), words, text]
        # Answers that say when their segments are, which those of a clip judged whole need not.
        return digest([*said, "seconds"] if self.frames.segment_seconds is not None else said)

    @property
    def concern_digest(self) -> str:
        """Digest of all that is asked of a prompt by its text alone, but for the model."""
        return digest(
            [self.concern_system, self.answer.model_dump(), [[law.id, law.concerns] for law in self.laws]]
        )

    def asked_of(self, category: str) -> list[Question | Law]:
        """The questions put to clips of a category, and all laws, in order."""
        questions = [one for one in self.questions if not one.categories or category in one.categories]
        return [*questions, *self.laws]


def load_rubric(path: str) -> Rubric:
    """The rubric in a YAML file, from the working folder or else from the checkout.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or says something a rubric does not know or allow;
            an unknown key is told the nearest one.
    """
    file = find(path)
    try:
        stat = file.stat()
        return _load(str(file), stat.st_mtime_ns, stat.st_size)
    except OSError as error:
        known = ", ".join("/".join(file.parts[-3:]) for file in shipped("rubrics").values())
        raise ConfigError(
            f"rubric {path}: {error.strerror}. Rubrics that come with vidloop: {known}"
        ) from None


@functools.lru_cache(maxsize=16)
def _load(file: str, changed_ns: int, size: int) -> Rubric:
    """Cached by what the file system says of the file: versions are asked for often."""
    where = f"rubric {file}"
    tree = read_yaml(Path(file), where)
    if not isinstance(tree, dict):
        raise ConfigError(f"{where}: expected keys and values (name: ..., questions: ...)")
    return validated(Rubric, tree, where)
