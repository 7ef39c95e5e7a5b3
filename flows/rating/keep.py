"""Votes of a session into the store, as immutable parts: in batches, and all of them at the end.

A batch is named in the session's file before it is written to the store, and from then on its votes cannot be
taken back: a process that ended between the two writes the same rows again, which the store has once.
"""

from __future__ import annotations

from typing import Final

from data import labels
from data.labels import Vote
from data.records import Label
from data.store import Store
from flows.rating.database import Database

BATCH: Final = 500
"""So many votes wait in the session's file before the store is written to: each batch is a unit there."""


_TAKE: Final = """
UPDATE votes SET batch = ?
WHERE batch IS NULL AND (? OR vote NOT IN (SELECT max(vote) FROM votes GROUP BY rater))
"""
_VOTES: Final = """
SELECT rater, votes.item, votes.repeat, shown_left, question, answer, seconds, plays, votes.at
FROM votes JOIN shows USING (rater, number) WHERE ?1 IS NULL OR batch = ?1 ORDER BY vote
"""


def due(database: Database) -> bool:
    """Whether so many votes wait that they make a batch."""
    waiting: int = database.rows("SELECT count(*) FROM votes WHERE batch IS NULL")[0][0]
    return waiting >= BATCH


def commit(database: Database, store: Store, everything: bool = True) -> int:
    """Bring votes into the store.

    Args:
        database: the session.
        store: that holds its clips.
        everything: also each rater's last vote, which he could else take back.

    Returns:
        Votes that are in the store now and were not.

    Raises:
        StoreError: the store cannot be written to; the votes wait in the session's file.
    """
    with database.transaction():
        batch = database.rows("SELECT coalesce(max(batch), 0) + 1 FROM batches")[0][0]
        if database.write(_TAKE, batch, everything):
            database.write("INSERT INTO batches VALUES (?, NULL)", batch)
    count = 0
    for (waiting,) in database.rows("SELECT batch FROM batches WHERE key IS NULL ORDER BY batch"):
        rows = read_votes(database, waiting)
        manifest = labels.commit(store, rows)
        database.write("UPDATE batches SET key = ? WHERE batch = ?", manifest.key, waiting)
        count += len(rows)
    return count


def read_votes(database: Database, batch: int | None = None) -> list[Label]:
    """Votes of the session's file, or of one batch, as the store has them, in the order of voting."""
    rows = database.rows(_VOTES, batch)
    found = []
    for rater, name, repeat, shown_left, question, answer, seconds, plays, at in rows:
        item = database.items[name]
        first, *others = [clip.clip_id for clip in item.clips]
        vote = Vote(
            clip_id=first, other_clip_id=others[0] if others else None, answer=answer, rater=rater,
            session=database.plan.session, at=at, seconds=seconds, plays=plays,
            shown_left=shown_left if others else None, gold=item.gold.get(question), repeat=repeat,
        )  # fmt: skip
        found.append(labels.label(database.questions[question], vote, database.plan.session))
    return found
