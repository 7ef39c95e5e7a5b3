"""Labels of people: how a vote is made, kept and read, by whatever asks for it: a file, a page, a script.

A vote is a fact of its own and never changed. The same vote read twice (from a file that has grown since,
from a page that was asked again) has the same id and is one row. That a rater is not to be believed is a
later fact (`exclude`), which can be taken back; the votes stay.

Other than what is computed, a vote cannot be made again: what damages its unit is loss, unless its file or
session is still there.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from data.errors import DataError
from data.keys import digest
from data.records import Exclusion, Label, from_table
from data.store import Manifest, Store

STAGE: Final = "labels"
EXCLUSIONS: Final = "exclusions"
_VERSION: Final = 1

Kind = Literal["yes_no", "grade", "pair"]
KINDS: Final[tuple[Kind, ...]] = ("yes_no", "grade", "pair")
SKIP: Final = "skip"
_YES_NO: Final = {"no": 0.0, "yes": 1.0}
# Of a pair: the share of a win that is the first clip's.
_PAIR: Final = {"first": 1.0, "second": 0.0, "tie": 0.5, "both_bad": 0.5}


@dataclass(frozen=True)
class Question:
    """What a person is asked. Other words, or another range, are another version of it.

    Attributes:
        name: short, as columns and settings say it.
        words: what was shown, to the letter; "" where nobody knows.
        kind: yes_no, grade, or pair: which of two clips.
        low, high: of grades: the least and the highest.
    """

    name: str
    words: str = ""
    kind: Kind = "yes_no"
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not self.name:
            raise DataError("the question has no name: say what was asked")
        if self.kind not in KINDS:
            raise DataError(f"the kind {self.kind!r} is not one of {', '.join(KINDS)}")
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise DataError(f"grades from {self.low:g} to {self.high:g}: say low and high, low the lesser")
        if self.kind != "grade" and (self.low, self.high) != (0.0, 1.0):
            raise DataError(f"low and high are of grades, and question {self.name!r} is {self.kind}")

    @property
    def version(self) -> str:
        """Digest of the words, the kind and the range, 16 hex digits."""
        return digest([self.words, self.kind, float(self.low), float(self.high)])[:16]

    def value(self, answer: str) -> float | None:
        """An answer as a number from `low` to `high`; None: skipped.

        Raises DataError: it is no answer to this question.
        """
        if answer == SKIP:
            return None
        if self.kind == "grade":
            try:
                grade = float(answer)
            except ValueError:
                grade = math.nan
            if self.low <= grade <= self.high:
                return grade
            raise DataError(f"{self.name}: {answer!r} is no grade from {self.low:g} to {self.high:g}")
        answers = _PAIR if self.kind == "pair" else _YES_NO
        if answer not in answers:
            raise DataError(f"{self.name}: {answer!r} is not one of {', '.join(answers)}, {SKIP}")
        return answers[answer]


@dataclass(frozen=True, kw_only=True)
class Vote:
    """What a person said, and the circumstances; what is not known is None. As the columns of `Label`."""

    clip_id: str
    answer: str
    rater: str
    other_clip_id: str | None = None
    session: str = ""
    at: str | None = None
    seconds: float | None = None
    plays: int | None = None
    shown_left: str | None = None
    gold: str | None = None
    repeat: int = 0


def label(question: Question, vote: Vote, source: str) -> Label:
    """The row of a vote.

    Args:
        question: that was asked.
        vote: what was said.
        source: SHA-256 of the file it stands in, or the session.

    Raises:
        DataError: it is no answer to the question, names one clip where two are asked about (or the
            reverse), or has a time, a count or a side that cannot be.
    """
    clips = [vote.clip_id] if vote.other_clip_id is None else [vote.clip_id, vote.other_clip_id]
    if question.kind != "pair" and len(clips) == 2:
        raise DataError(f"question {question.name!r} is {question.kind}: it is of one clip, not of two")
    if question.kind == "pair" and len(set(clips)) != 2:
        raise DataError(f"question {question.name!r} is of two clips, and the vote names one")
    if not vote.rater:
        raise DataError("the vote has no rater: say whose it is")
    value = question.value(vote.answer)
    if vote.gold is not None:
        question.value(vote.gold)
    if vote.shown_left is not None and vote.shown_left not in clips:
        raise DataError(f"the clip on the left, {vote.shown_left}, is not of the vote")
    if vote.seconds is not None and not (math.isfinite(vote.seconds) and vote.seconds >= 0):
        raise DataError(f"{vote.seconds} seconds: say how long the vote took, from 0")
    for name, count in (("plays", vote.plays), ("repeat", vote.repeat)):
        if count is not None and count < 0:
            raise DataError(f"{name} {count}: it is counted from 0")
    # Which of the two stood first is how it was asked, not what was asked.
    asked = [vote.session, vote.rater, question.name, question.version, sorted(clips), vote.repeat]
    return Label(
        label_id="l" + digest(asked)[:24],
        question=question.name,
        question_version=question.version,
        kind=question.kind,
        value=value,
        low=float(question.low),
        high=float(question.high),
        source=source,
        **dataclasses.asdict(vote) | {"at": None if vote.at is None else _utc(vote.at)},
    )


def said(row: Label) -> float | None:
    """The value of a vote; of a pair, the share of the clip that is first by name, whichever stood first."""
    turned = row.other_clip_id is not None and row.other_clip_id < row.clip_id
    return 1 - row.value if turned and row.value is not None else row.value


def commit(store: Store, rows: Sequence[Label]) -> Manifest:
    """Keep votes, all or none; from here on they survive a crash. The same again changes nothing.

    Raises:
        StoreError: the store cannot be written to.
        ValueError: two of them have one id.
    """
    asked = digest(sorted([list(dataclasses.astuple(row)) for row in rows], key=lambda one: one[0]))
    return store.commit(STAGE, {"stage": STAGE, "version": _VERSION, "rows": asked}, {"labels": list(rows)})


def exclude(
    store: Store, rater: str, reason: str, session: str = "", excluded: bool = True, at: str | None = None
) -> Exclusion:
    """Have the labels of a rater count no more, or (`excluded` False) again.

    Args:
        store: that holds them.
        rater: whose.
        reason: for those who come later.
        session: of which; "": of all.
        excluded: whether they are left out from now on.
        at: ISO 8601; None: now.

    Raises:
        DataError: no label is this rater's, in this session.
    """
    if not any(row.rater == rater and session in ("", row.session) for row in every(store)):
        where = f" in session {session}" if session else ""
        raise DataError(f"{store.url} holds no label of rater {rater!r}{where}; view labels names the raters")
    row = Exclusion(rater, session, _utc(at or datetime.now(UTC).isoformat()), excluded, reason)
    asked = {"stage": EXCLUSIONS, "version": _VERSION, "row": list(dataclasses.astuple(row))}
    store.commit(EXCLUSIONS, asked, {"exclusions": [row]})
    return row


def units(store: Store) -> tuple[str, ...]:
    """Keys of the units that hold votes and exclusions now: what is said by them does not change later."""
    return tuple(unit.key for stage in (STAGE, EXCLUSIONS) for unit in store.manifests(stage))


def every(store: Store, keys: Sequence[str] | None = None) -> list[Label]:
    """All votes of a store, each once, in the order of their ids.

    Args:
        store: that holds them.
        keys: of `units`; None: of all that there are now.

    Raises:
        Damaged: a part of them is gone or was changed.
    """
    found: dict[str, Label] = {}
    rows = from_table("labels", store.arrow(units(store) if keys is None else keys, "labels"))
    for row in sorted(rows, key=_in_order):
        found.setdefault(row.label_id, row)  # which of several is the same as in the view `labels`
    return list(found.values())


def counted(store: Store, keys: Sequence[str] | None = None) -> list[Label]:
    """Those votes of `every` whose raters are not excluded. Arguments and errors are as there."""
    keys = units(store) if keys is None else keys
    last: dict[tuple[str, str], Exclusion] = {}
    rows: list[Exclusion] = from_table("exclusions", store.arrow(keys, "exclusions"))
    for row in sorted(rows, key=lambda row: row.at):
        last[row.rater, row.session] = row
    return [row for row in every(store, keys) if not _excluded(row, last)]


def _excluded(row: Label, last: Mapping[tuple[str, str], Exclusion]) -> bool:
    said = [last[key] for key in ((row.rater, ""), (row.rater, row.session)) if key in last]
    return max(said, key=lambda one: one.at).excluded if said else False


def _in_order(row: Label) -> tuple[tuple[bool, object], ...]:
    return tuple((value is None, "" if value is None else value) for value in dataclasses.astuple(row))


def _utc(text: str) -> str:
    try:
        time = datetime.fromisoformat(text)
        time = time.replace(tzinfo=time.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        raise DataError(f"the time {text!r} is not ISO 8601, such as 2026-11-30T19:00:00Z") from None
    return time.isoformat(timespec="microseconds")
