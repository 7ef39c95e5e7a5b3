"""A session's file: an SQLite database in which every vote is on the disk before anybody is told that it is.

Write-ahead log, and `synchronous = FULL`: a transaction has reached the disk when COMMIT returns
(https://www.sqlite.org/pragma.html#pragma_synchronous), so the end of the process, or of the machine, loses
nothing that was said to be kept.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from data.errors import ConfigError, StoreError
from data.keys import only_one
from data.labels import Question
from flows.rating.items import Item, Shown

ENDING: Final = ".rating"
_FORMAT: Final = 1
_PATIENCE_S: Final = 30.0
_TABLES: Final = """
CREATE TABLE session (what TEXT NOT NULL);
CREATE TABLE items (item TEXT PRIMARY KEY, place INTEGER NOT NULL, gold INTEGER NOT NULL, what TEXT NOT NULL);
CREATE TABLE raters (rater TEXT PRIMARY KEY, token TEXT NOT NULL UNIQUE, excluded TEXT);
-- What a rater was shown: his first, second, ... item, and the clip that stood on the left.
CREATE TABLE shows (
  rater TEXT NOT NULL REFERENCES raters, number INTEGER NOT NULL, item TEXT NOT NULL REFERENCES items,
  repeat INTEGER NOT NULL, shown_left TEXT NOT NULL, at REAL NOT NULL,
  PRIMARY KEY (rater, number), UNIQUE (rater, item, repeat)
);
-- `share` is the answer from 0 to 1, null: skipped. Votes of a `batch` are on their way into the store.
CREATE TABLE votes (
  vote INTEGER PRIMARY KEY AUTOINCREMENT, rater TEXT NOT NULL, number INTEGER NOT NULL,
  item TEXT NOT NULL, repeat INTEGER NOT NULL,
  question TEXT NOT NULL, answer TEXT NOT NULL, share REAL, seconds REAL NOT NULL, plays INTEGER NOT NULL,
  at TEXT NOT NULL, batch INTEGER,
  UNIQUE (rater, number, question), FOREIGN KEY (rater, number) REFERENCES shows
);
CREATE INDEX tally ON votes (item, question, repeat, rater, share);
CREATE TABLE batches (batch INTEGER PRIMARY KEY, key TEXT);
"""


@dataclass(frozen=True)
class Plan:
    """What a session is, fixed when it is made.

    Attributes:
        session: its id.
        store: where its clips are, as it was named.
        questions: in the order in which they are asked.
        votes: how many raters each item wants.
        repeats: share of a rater's items that is shown to him again.
        seed: of every draw.
    """

    session: str
    store: str
    questions: tuple[Question, ...]
    votes: int
    repeats: float
    seed: int


class Database:
    """One session's file. Threads share it; other processes may have it open too."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection, self._lock = connection, threading.RLock()
        plan = json.loads(self.rows("SELECT what FROM session")[0][0])
        questions = tuple(Question(**one) for one in plan.pop("questions"))
        self.plan = Plan(**plan, questions=questions)
        self.questions = {one.name: one for one in questions}
        self.items = {
            item: Item(tuple(Shown(**clip) for clip in what["clips"]), tuple(what["questions"]), what["gold"])
            for item, text in self.rows("SELECT item, what FROM items ORDER BY place")
            for what in [json.loads(text)]
        }  # fmt: skip

    def rows(self, sql: str, *values: Any) -> list[Any]:
        """All rows of a query."""
        with self._lock:
            return self._connection.execute(sql, values).fetchall()

    def write(self, sql: str, *values: Any) -> int:
        """Execute a statement, in a transaction of its own outside `transaction`; how many rows changed."""
        with self._lock:
            return self._connection.execute(sql, values).rowcount

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is read and written in the block at once, or not at all; on the disk when it ends."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._connection.close()


def create(folder: Path, plan: Plan, items: list[Item], raters: dict[str, str]) -> Database:
    """Make a session's file: whole, or not at all.

    Args:
        folder: of the sessions.
        plan: what it is.
        items: in any order.
        raters: digest of each one's token.

    Raises:
        ConfigError: the folder cannot be written to.
    """
    path = folder / f"{plan.session}{ENDING}"
    # Under another name until it is whole: what has the right name can be opened.
    unfinished = folder / f".{plan.session}.new"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        unfinished.unlink(missing_ok=True)
        with sqlite3.connect(unfinished) as made:
            made.executescript(_TABLES)
            made.execute(f"PRAGMA user_version = {_FORMAT}")
            made.execute("INSERT INTO session VALUES (?)", [json.dumps(asdict(plan))])
            made.executemany(
                "INSERT INTO items VALUES (?, ?, ?, ?)",
                [(one.item_id, n, bool(one.gold), json.dumps(asdict(one))) for n, one in enumerate(items)],
            )
            made.executemany("INSERT INTO raters VALUES (?, ?, NULL)", list(raters.items()))
        made.close()
        unfinished.chmod(0o600)
        unfinished.replace(path)
    except (OSError, sqlite3.Error) as error:
        raise ConfigError(f"--state {folder}: a session cannot be kept there: {error}") from None
    return open_session(folder, plan.session)


def sessions(folder: Path) -> list[str]:
    """Ids of the sessions in a folder, oldest first."""
    files = sorted(folder.glob(f"*{ENDING}"), key=lambda path: path.stat().st_mtime)
    return [path.name.removesuffix(ENDING) for path in files]


def open_session(folder: Path, session: str) -> Database:
    """The session of an id, or of the beginning of one; "": the only one there is.

    Raises:
        ConfigError: there is none, or several.
        StoreError: the file is damaged, or of a later version.
    """
    known = sessions(folder)
    if not session and len(known) == 1:
        session = known[0]
    session = only_one(session, known)
    if session not in known:
        told = f"there are {', '.join(known)}" if known else "there is none"
        raise ConfigError(
            f"no session {session!r} in {folder}: {told}; --state names the folder of the sessions"
        )
    path = folder / f"{session}{ENDING}"
    try:
        connection = sqlite3.connect(path, timeout=_PATIENCE_S, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        if (version := connection.execute("PRAGMA user_version").fetchone()[0]) != _FORMAT:
            raise StoreError(f"session {path} is of format {version}, this program reads {_FORMAT}")
        return Database(path, connection)
    except (sqlite3.Error, IndexError, KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"session {path} cannot be read: {error}. What it had committed is in the store"
        ) from None
