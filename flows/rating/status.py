"""How far a session is, and whom to believe: agreement, known answers, answers given twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from data.records import Label
from flows.rating.choose import left
from flows.rating.database import Database
from flows.rating.keep import read_votes
from flows.reporting.agreement import Agreement, agreement


@dataclass(frozen=True)
class Rater:
    """One rater's work.

    Attributes:
        name: who.
        votes: given, skips and repetitions among them.
        items: answered to the end; `left` are to come.
        gold: share of answers to questions whose answer is known that were right; None: `golds` is 0.
        again: share of answers given twice that were the same; None: `repeats` is 0.
        seconds: median time of a vote; None: no votes.
        excluded: why his votes do not count; None: they do.
    """

    name: str
    votes: int
    items: int
    left: int
    gold: float | None
    golds: int
    again: float | None
    repeats: int
    seconds: float | None
    excluded: str | None


@dataclass(frozen=True)
class Status:
    """A session: its raters, how far they agree, and how many votes are in the store."""

    session: str
    store: str
    items: int
    votes: int
    in_store: int
    complete: bool
    raters: tuple[Rater, ...]
    agreement: tuple[Agreement, ...]


def read_status(database: Database) -> Status:
    """The state of a session now."""
    rows = read_votes(database)
    out = dict(database.rows("SELECT rater, excluded FROM raters ORDER BY rater"))
    raters = tuple(
        _rater(database, name, why, [row for row in rows if row.rater == name]) for name, why in out.items()
    )
    counted = [row for row in rows if out[row.rater] is None]
    in_store = "SELECT count(*) FROM votes JOIN batches USING (batch) WHERE key IS NOT NULL"
    return Status(
        database.plan.session, database.plan.store, len(database.items), len(rows),
        database.rows(in_store)[0][0],
        all(one.left == 0 for one in raters if one.excluded is None), raters,
        tuple(agreement(one.name, one.kind, counted) for one in database.plan.questions),
    )  # fmt: skip


def _rater(database: Database, name: str, why: str | None, rows: Sequence[Label]) -> Rater:
    import statistics

    golds = [row for row in rows if row.gold is not None and row.repeat == 0 and row.value is not None]
    twice: dict[tuple[str, str, str | None], list[str]] = defaultdict(list)
    for row in rows:
        if row.value is not None:
            twice[row.question, row.clip_id, row.other_clip_id].append(row.answer)
    pairs = [answers for answers in twice.values() if len(answers) > 1]
    answered: dict[int, int] = dict(
        database.rows("SELECT number, count(*) FROM votes WHERE rater = ? GROUP BY number", name)
    )
    shown = database.rows("SELECT number, item FROM shows WHERE rater = ?", name)
    whole = sum(answered.get(n, 0) == len(database.items[item].questions) for n, item in shown)
    return Rater(
        name, len(rows), whole, left(database, name).count + len(shown) - whole,
        _share([row.answer == row.gold for row in golds]), len(golds),
        _share([answers[0] == answers[1] for answers in pairs]), len(pairs),
        statistics.median(row.seconds or 0.0 for row in rows) if rows else None, why,
    )  # fmt: skip


def _share(right: Sequence[bool]) -> float | None:
    return sum(right) / len(right) if right else None
