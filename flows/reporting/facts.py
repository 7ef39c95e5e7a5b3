"""What a report says, as plain values: the border between reading a store and writing a page.

A value that was not measured is None and carries a reason; it never becomes a zero on the way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from data.records import Score
from flows.reporting.agreement import Agreement
from flows.reporting.seeds import Spread
from models.gate import verdict as gate
from models.gate.intervals import Interval
from models.gate.wins import Wins
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
class Measure:
    """A reward, or `diversity`, under both policies.

    Attributes:
        name: what the recipe calls it.
        taught: whether the round learned from it, or from the same model.
        part: what it is for in the round; "beside" decides nothing.
        found: means, the change and its interval.
    """

    name: str
    taught: bool
    part: Literal["decides", "guard", "beside"]
    found: gate.Comparison


@dataclass(frozen=True)
class Duel:
    """The candidate against another policy, clip by clip of the same prompt and seed, by the metric.

    Attributes:
        opponent: the policy before, or a baseline's name.
        wins: of the candidate.
    """

    opponent: str
    wins: Wins


@dataclass(frozen=True)
class Preference:
    """What people said of clips before and after a round, side by side, to one question.

    Attributes:
        question: its name.
        share: of votes for the clip after the round, ties as a half; its interval is over prompts and raters.
        won, tied, lost: votes for the clip after, for neither, for the one before.
        raters, prompts: so many.
        agreement: of the raters.
    """

    question: str
    share: Interval
    won: int
    tied: int
    lost: int
    raters: int
    prompts: int
    agreement: Agreement


@dataclass(frozen=True)
class Seen:
    """A clip of one policy: the primary metric's value, None where judging failed, and the judge's words."""

    clip_id: str
    path: str
    value: float | None
    note: str = ""


@dataclass(frozen=True)
class PairedClip:
    """The same prompt and seed under both policies."""

    prompt: str
    category: str
    seed: int
    before: Seen
    after: Seen
    split: str = ""
    prompt_id: str = ""


@dataclass(frozen=True)
class ClipGroup:
    """Clips whose metric changed in the same way: how many there are, and the few that are shown."""

    name: str
    meaning: str
    total: int
    shown: tuple[PairedClip, ...]


@dataclass(frozen=True)
class RewardSpread:
    """All values that one reward, or one question or law of a judge, gave to the training clips.

    Attributes:
        unasked: clips whose prompt a law does not concern, so that nothing was asked of them.
        scale: what values are, for a judge's questions and laws.
    """

    reward: str
    version: str
    values: list[float]
    errors: list[str]
    feedback: bool = False
    kind: str = ""
    unasked: int = 0
    scale: str = ""


@dataclass(frozen=True)
class Judge:
    """A vision-language model that judged in the round.

    Attributes:
        name: what the recipe calls it.
        settings: what the recipe says of it.
        belief: how far it agrees with labels, or that nobody knows.
        questions: by question, the value of each answer about training clips, one a clip and segment; by
            law, its value of each clip whose prompt it concerns.
    """

    name: str
    settings: Mapping[str, Any]
    belief: str
    questions: tuple[RewardSpread, ...]


@dataclass(frozen=True)
class Step:
    """One step of the lineage: what it is, which ids it has, what it was made from."""

    what: str
    ident: str
    detail: str


@dataclass(frozen=True)
class Facts:
    """Everything on the page: the round's summary, and what the store says beside it.

    Attributes:
        measures: of both policies on the set that decides, the metric first; duels: by the metric.
        people: what they prefer, question by question; empty: nobody was asked.
        training: category of each training clip, by its id.
        scores: every judgement of the training clips.
        curation: the report of `data.curation`; with "categories" ("all" the last) and "reasons", (reason,
            clips), the most frequent first. Empty: nothing was curated.
        seeds: the gain of this round and those that differ in the seed alone.
        curves: (step, value) by name; names are those of TRL's DPO trainer where it has one.
    """

    summary: RoundSummary
    comparisons: tuple[Comparison, ...] = ()
    measures: tuple[Measure, ...] = ()
    duels: tuple[Duel, ...] = ()
    people: tuple[Preference, ...] = ()
    clips: tuple[ClipGroup, ...] = ()
    training: Mapping[str, str] = field(default_factory=dict)
    scores: tuple[Score, ...] = ()
    rewards: tuple[RewardSpread, ...] = ()
    judges: tuple[Judge, ...] = ()
    curation: Mapping[str, Any] = field(default_factory=dict)
    curves: Mapping[str, list[tuple[float, float]]] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    lineage: tuple[Step, ...] = ()
    seeds: Spread | None = None
