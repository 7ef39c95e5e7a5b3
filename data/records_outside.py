"""Rows of what comes from outside: files, what a model's encoders made of them, and what people said.

They are part of `data.records`, and imported from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Imported = Literal["taken", "converted", "refused"]


@dataclass(frozen=True, slots=True)
class Import:
    """A file from outside: what it was, what was done to it, or why it was refused.

    `name` is the set's, `source` the file as its table names it, `source_sha256` its digest ("": it was not
    read), `conversion` what was asked for (JSON). What the file does not say of itself is null.
    """

    name: str
    source: str
    source_sha256: str
    conversion: str
    prompt_id: str
    status: Imported
    reason: str | None
    done: list[str]
    clip_id: str | None
    container: str | None
    codec: str | None
    pix_fmt: str | None
    width: int | None
    height: int | None
    rotation: int | None
    frames: int | None
    fps: float | None
    seconds: float | None

    def __post_init__(self) -> None:
        refused = self.status == "refused"
        if refused != bool(self.reason) or refused != (self.clip_id is None):
            raise ValueError(f"import of {self.source}: a refusal has a reason, and nothing else has no clip")


@dataclass(frozen=True, slots=True)
class Latent:
    """What a model's VAE and text encoder made of a clip from outside; columns as those of `Clip`.

    `encoder` is a digest of the model and of how it encodes.
    """

    clip_id: str
    encoder: str
    latent_path: str
    latent_row: int
    embed_row: int


@dataclass(frozen=True, slots=True)
class Label:
    """What one person said of a clip, or of two: a vote. `data.labels` makes them; none is ever changed.

    `kind` is yes_no, grade or pair; `answer` what was said: yes, no, a number, first, second, tie, both_bad
    or skip. `value` is that as a number from `low` to `high`, of a pair 1 for the first clip, 0 for the
    other, 0.5 for neither; null: skipped. `question_version` is a digest of the question's words.
    `shown_left` is the clip that was on the left, `gold` the answer known to be right, `repeat` how often
    the same was asked before, `source` the SHA-256 of the file, or the session, that it came from. What is
    not known is null.
    """

    label_id: str
    clip_id: str
    other_clip_id: str | None
    question: str
    question_version: str
    kind: str
    answer: str
    value: float | None
    low: float
    high: float
    rater: str
    session: str
    at: str | None
    seconds: float | None
    plays: int | None
    shown_left: str | None
    gold: str | None
    repeat: int
    source: str


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Whether a rater's labels count from now on, and why; `session` "": in all. The last one speaks."""

    rater: str
    session: str
    at: str
    excluded: bool
    reason: str
