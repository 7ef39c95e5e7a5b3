"""What a report says, as plain values: the border between reading a store and writing a page.

A value that was not measured is None and carries a reason; it never becomes a zero on the way.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from models.training.diagnosis import Finding
from tasks.summary import RoundSummary


@dataclass(frozen=True)
class Measured:
    """A rate or a mean with its 95% interval.

    Attributes:
        value: the estimate; None where nothing was measured.
        low, high: ends of the interval; None where it cannot be had (one prompt, or no value).
        prompts, clips: what it was measured on.
        failed: clips whose judgement failed; they are in no mean.
    """

    value: float | None
    low: float | None
    high: float | None
    prompts: int
    clips: int
    failed: int = 0


@dataclass(frozen=True)
class Comparison:
    """One line of the before/after chart: a category, or all of a split.

    `delta` with its interval is the gate's paired comparison, sharper than two means side by side.
    """

    label: str
    before: Measured
    after: Measured
    delta: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class PairedClip:
    """The same prompt and seed under both policies.

    Attributes:
        before, after: the primary metric's value on each clip; None where judging failed.
        note_before, note_after: the judge's reason in words, where the feedback gives one.
        clip_before, clip_after: clip ids.
        path_before, path_after: video paths, relative to the store.
    """

    prompt: str
    category: str
    seed: int
    before: float | None
    after: float | None
    clip_before: str
    clip_after: str
    path_before: str
    path_after: str
    note_before: str = ""
    note_after: str = ""
    split: str = ""
    prompt_id: str = ""

    @property
    def change(self) -> float:
        """after - before; 0 where one of them is not known."""
        return 0.0 if self.before is None or self.after is None else self.after - self.before


@dataclass(frozen=True)
class ClipGroup:
    """Clips whose metric changed in the same way: how many there are, and the few that are shown."""

    name: str
    meaning: str
    total: int
    shown: tuple[PairedClip, ...]


@dataclass(frozen=True)
class RewardSpread:
    """All values that one reward gave to the training clips."""

    reward: str
    version: str
    values: tuple[float, ...]
    failed: int
    first_error: str | None
    feedback: bool
    kind: str = ""


@dataclass(frozen=True)
class Judge:
    """A vision-language model that judged in the round.

    Attributes:
        name: what the recipe calls it.
        model, backend, rubric: as the recipe names them.
        belief: how far it agrees with labels, or that nobody knows.
        questions: by question, P(yes) of each answer about training clips, one a clip and segment.
    """

    name: str
    model: str
    backend: str
    rubric: str
    belief: str
    questions: tuple[RewardSpread, ...]


@dataclass(frozen=True)
class CuratedCategory:
    """What curation made of one category."""

    category: str
    clips: int
    accepted: int
    pairs: int


@dataclass(frozen=True)
class Curation:
    """What curation kept and why."""

    outcome: str = ""
    categories: tuple[CuratedCategory, ...] = ()
    reasons: tuple[tuple[str, int], ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Curve:
    """Logged values of one training run, by step. Names are those of TRL's DPO trainer where it has one."""

    name: str
    steps: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Step:
    """One step of the lineage: what it is, which ids it has, what it was made from."""

    what: str
    ident: str
    detail: str


@dataclass(frozen=True)
class Facts:
    """Everything on the page: the round's summary, and what the store says beside it."""

    summary: RoundSummary
    comparisons: tuple[Comparison, ...] = ()
    clips: tuple[ClipGroup, ...] = ()
    rewards: tuple[RewardSpread, ...] = ()
    judges: tuple[Judge, ...] = ()
    curation: Curation = field(default_factory=Curation)
    curves: tuple[Curve, ...] = ()
    findings: tuple[Finding, ...] = ()
    lineage: tuple[Step, ...] = ()
