"""The rubric: what a judge is asked, on which frames, and how its answers become one value. A YAML file.

A rubric is data: rewording a question asks a new question (and that one alone), changing `combine`, a weight
or the threshold asks nothing again.
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
from data.yaml_text import parse_yaml

PROMPT: Final = "{prompt}"

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

    positive: Spellings
    negative: Spellings
    min_mass: float = Field(default=0.5, ge=0.0, le=1.0)

    @model_validator(mode="after")
    def _apart(self) -> Answer:
        both = set(self.positive) & set(self.negative)
        if both:
            raise ValueError(f"{', '.join(sorted(both))} is both a positive and a negative spelling")
        return self


class Question(_Part):
    """One yes/no question. `{prompt}` in its text stands for the clip's prompt.

    Attributes:
        id: its name in rewards, reports and SQL.
        text: what is asked, after the media.
        categories: prompts' categories to which it is put; empty: all.
        weight: in `combine: weighted`.
        good: the answer that speaks for the clip; "negative" turns P(yes) into 1 - P(yes).
    """

    id: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")
    text: str = Field(min_length=1)
    categories: list[str] = []
    weight: float = Field(default=1.0, gt=0.0)
    good: Literal["positive", "negative"] = "positive"


class Rubric(_Part):
    """A judge's questions and how their answers combine.

    Attributes:
        system: what stands before the media; the same for all questions, so that servers can cache it.
        combine: "all": the smallest of the questions' values, so that the clip passes if every question does;
            "mean"; or "weighted": sum w v / sum w, over the questions that apply to the clip.
        threshold: combined value from which a clip passes.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    system: str
    frames: Frames
    answer: Answer
    combine: Literal["all", "mean", "weighted"] = "all"
    threshold: float = Field(default=0.5, ge=0.0, le=1.0)
    questions: list[Question] = Field(min_length=1)

    @field_validator("questions")
    @classmethod
    def _named_once(cls, questions: list[Question]) -> list[Question]:
        names = [question.id for question in questions]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two questions are called {', '.join(twice)}")
        return questions

    def question_digest(self, question: Question) -> str:
        """Digest of all that decides one question's answers, but for the model: 64 hex digits.

        Not in it: the other questions, weights, `combine` and the threshold.
        """
        asked = question.model_dump(include={"text", "categories", "good"})
        said = ["question", self.system, self.frames.model_dump(), self.answer.model_dump(), asked]
        # Answers that say when their segments are, which those of a clip judged whole need not.
        return digest([*said, "seconds"] if self.frames.segment_seconds is not None else said)

    def asked_of(self, category: str) -> list[Question]:
        """The questions put to clips of a category, in order."""
        return [asked for asked in self.questions if not asked.categories or category in asked.categories]


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
    try:
        text = Path(file).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"rubric {file}: it is not a text file") from None
    where = f"rubric {file}"
    tree = parse_yaml(text, where)
    if not isinstance(tree, dict):
        raise ConfigError(f"{where}: expected keys and values (name: ..., questions: ...)")
    return validated(Rubric, tree, where)
