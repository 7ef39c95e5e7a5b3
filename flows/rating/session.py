"""One rater's way through a session: what he is shown, what he answers, what he takes back."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from data.errors import ConfigError, DataError, VidloopError
from data.keys import digest
from data.labels import SKIP
from flows.rating.choose import left
from flows.rating.database import Database, Plan

_TOKEN_BYTES: Final = 24
# Of the rater's own last votes the time that is left is told; from fewer it is not.
_LAST, _LEAST = 30, 3
# Clocks of browsers and players are not ours.
_SLACK_S: Final = 0.25
_SIDES: Final = ("left", "right")


class Refused(VidloopError):
    """A vote that is not taken, and why; nothing was changed.

    Attributes:
        status: of the answer over HTTP.
    """

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True)
class Given:
    """A vote as the page sends it: `answer` says left and right of two clips, where labels say which clip."""

    number: int
    question: str
    answer: str
    seconds: float
    plays: int


def plan_of(
    store: str,
    items: Sequence[Any],
    questions: Sequence[Any],
    raters: Sequence[str],
    votes: int,
    repeats: float,
    seed: int,
) -> Plan:
    """A session's plan: its id is what it asks, so that the same command goes on with the same session.

    Raises ConfigError: raters of one name, or more votes wanted than there are raters.
    """
    if len(set(raters)) != len(raters) or not all(raters):
        raise ConfigError(f"--rater: each has a name of his own, and these are {', '.join(raters)}")
    if not 1 <= votes <= len(raters):
        raise ConfigError(f"--votes {votes}: each item can have from 1 to {len(raters)}, one a rater")
    asked = [
        [[item.item_id, dict(item.gold), list(item.questions)] for item in items],
        [[one.name, one.version] for one in questions], list(raters), votes, float(repeats), seed,
    ]  # fmt: skip
    return Plan("s" + digest(asked)[:12], store, tuple(questions), votes, repeats, seed)


def new_token() -> str:
    """What a rater's link ends in; nobody guesses it."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def token_digest(token: str) -> str:
    """What is kept of it."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def new_link(database: Database, rater: str) -> str:
    """A new token for a rater; the one before opens nothing any more. Raises ConfigError: no such rater."""
    token = new_token()
    if not database.write("UPDATE raters SET token = ? WHERE rater = ?", token_digest(token), rater):
        raise ConfigError(f"no rater {rater!r}: {_names(database)}")
    return token


def rater_of(database: Database, token: str) -> str | None:
    """Whose link a token is; None: nobody's. Takes as long whether or not it is nearly right."""
    given, found = token_digest(token), None
    for rater, held in database.rows("SELECT rater, token FROM raters"):
        if hmac.compare_digest(held, given):
            found = str(rater)
    return found


def exclude(database: Database, rater: str, reason: str) -> None:
    """Leave a rater out from now on: he is shown nothing, and his votes cover nothing.

    Raises ConfigError: there is no such rater.
    """
    if not database.write("UPDATE raters SET excluded = ? WHERE rater = ?", reason, rater):
        raise ConfigError(f"no rater {rater!r}: {_names(database)}")


def _names(database: Database) -> str:
    rows = database.rows("SELECT rater FROM raters ORDER BY rater")
    return f"the session's raters are {', '.join(row[0] for row in rows)}"


def excluded(database: Database, rater: str) -> bool:
    """Whether a rater is left out."""
    return database.rows("SELECT excluded FROM raters WHERE rater = ?", rater)[0][0] is not None


def state(database: Database, rater: str) -> dict[str, Any]:
    """What the page shows a rater now: the item that he is at, its questions, and how far he is.

    An item that he has not seen is chosen here, its sides are drawn, and both are kept: it is his until he
    has answered. Of others' votes nothing is in it.
    """
    with database.transaction():
        if excluded(database, rater):
            return {"closed": True}
        shows = _open_shows(database, rater)
        remaining = left(database, rater)
        if not shows and remaining.next is not None:
            shows = [_show(database, rater, *remaining.next)]
            remaining = left(database, rater)
        show = shows[0] if shows else None
        to_come = remaining.count + len(shows)
        done = database.rows("SELECT count(*) FROM shows WHERE rater = ?", rater)[0][0] - len(shows)
        undo = database.rows("SELECT batch FROM votes WHERE rater = ? ORDER BY vote DESC LIMIT 1", rater)
        answered = _answers(database, rater, show["number"]) if show else {}
        told: dict[str, Any] = {
            "done": done, "total": done + to_come, "undo": bool(undo) and undo[0][0] is None,
            "seconds_left": _seconds_left(database, rater, to_come, answered),
        }  # fmt: skip
    if show is None:
        return {**told, "finished": True}
    item = database.items[show["item"]]
    return {
        **told,
        "number": show["number"],
        "prompt": item.clips[0].prompt,
        "sides": list(_SIDES[: len(item.clips)]),
        "frame_seconds": 1 / item.clips[0].fps,
        "questions": [
            {
                "name": name, "words": one.words.replace("{prompt}", item.clips[0].prompt) or name,
                "kind": one.kind, "low": one.low, "high": one.high,
                "answer": _as_shown(item, show, answered.get(name)),
            }
            for name in item.questions
            for one in [database.questions[name]]
        ],
    }  # fmt: skip


def vote(database: Database, rater: str, given: Given) -> None:
    """Keep a vote: it is on the disk when this returns. The same again changes nothing.

    Raises:
        Refused: it is no answer to a question of the item that the rater is at, comes before the clips can
            have been watched to their end, or contradicts an answer that is kept (which undo takes back).
    """
    with database.transaction():
        if excluded(database, rater):
            raise Refused(410, "This session is closed.")
        rows = database.rows(
            "SELECT item, repeat, shown_left, at FROM shows WHERE rater = ? AND number = ?",
            rater,
            given.number,
        )
        if not rows:
            raise Refused(409, "You were not shown this.")
        name, repeat, shown_left, at = rows[0]
        item = database.items[name]
        if given.question not in item.questions:
            raise Refused(422, "That is not asked here.")
        question = database.questions[given.question]
        answer = _as_kept(item, shown_left, given.answer)
        try:
            value = question.value(answer)
        except DataError as error:
            raise Refused(422, str(error)) from None
        if (held := _answers(database, rater, given.number).get(given.question)) is not None:
            if held == answer:
                return
            raise Refused(409, "You have answered this already: undo takes it back.")
        longest = max(clip.seconds for clip in item.clips)
        if answer != SKIP and (given.plays < 1 or time.time() - at < longest - _SLACK_S):
            raise Refused(422, "Watch to the end first.")
        share = None if value is None else (value - question.low) / (question.high - question.low)
        database.write(
            "INSERT INTO votes (rater, number, item, repeat, question, answer, share, seconds, plays, at) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            rater, given.number, name, repeat, given.question, answer, share, given.seconds, given.plays,
            datetime.now(UTC).isoformat(timespec="microseconds"),
        )  # fmt: skip


def undo(database: Database, rater: str) -> None:
    """Take back a rater's last vote.

    Raises Refused: there is none, or it is on its way into the store, which forgets nothing.
    """
    with database.transaction():
        if excluded(database, rater):
            raise Refused(410, "This session is closed.")
        last = database.rows(
            "SELECT vote, batch FROM votes WHERE rater = ? ORDER BY vote DESC LIMIT 1", rater
        )
        if not last or last[0][1] is not None:
            raise Refused(409, "There is nothing to take back.")
        database.write("DELETE FROM votes WHERE vote = ?", last[0][0])


def clip_of(database: Database, rater: str, number: int, side: str) -> Any:
    """The clip on a side of what a rater was shown; None: he was not."""
    rows = database.rows("SELECT item, shown_left FROM shows WHERE rater = ? AND number = ?", rater, number)
    if not rows or excluded(database, rater):
        return None
    clips = database.items[rows[0][0]].clips
    ordered = sorted(clips, key=lambda clip: clip.clip_id != rows[0][1])
    return dict(zip(_SIDES, ordered, strict=False)).get(side)


def _open_shows(database: Database, rater: str) -> list[dict[str, Any]]:
    """What he was shown that still has a question open: one, and after undo more."""
    rows = database.rows(
        "SELECT number, shows.item, shown_left, count(vote) FROM shows LEFT JOIN votes USING (rater, number) "
        "WHERE rater = ? GROUP BY number ORDER BY number",
        rater,
    )
    return [
        {"number": number, "item": item, "left": shown_left}
        for number, item, shown_left, answers in rows
        if answers < len(database.items[item].questions)
    ]


def _show(database: Database, rater: str, item: str, repeat: int) -> dict[str, Any]:
    number = database.rows("SELECT count(*) + 1 FROM shows WHERE rater = ?", rater)[0][0]
    clips = sorted(clip.clip_id for clip in database.items[item].clips)
    drawn = int(digest([database.plan.seed, database.plan.session, rater, item, repeat])[:8], 16)
    shown_left = clips[drawn % len(clips)]
    database.write(
        "INSERT INTO shows VALUES (?, ?, ?, ?, ?, ?)", rater, number, item, repeat, shown_left, time.time()
    )
    return {"number": number, "item": item, "left": shown_left}


def _answers(database: Database, rater: str, number: int) -> dict[str, str]:
    return dict(
        database.rows("SELECT question, answer FROM votes WHERE rater = ? AND number = ?", rater, number)
    )


def _as_kept(item: Any, shown_left: str, answer: str) -> str:
    """left, right -> first, second: which clip it is, wherever it stood."""
    if answer not in _SIDES:
        # Of a pair the page knows sides only: what it does not show cannot be meant.
        return "" if answer in ("first", "second") else answer
    if len(item.clips) != len(_SIDES):
        return ""
    return "first" if (answer == "left") == (shown_left == item.clips[0].clip_id) else "second"


def _as_shown(item: Any, show: Mapping[str, Any], answer: str | None) -> str | None:
    if answer not in ("first", "second"):
        return answer
    return "left" if (answer == "first") == (show["left"] == item.clips[0].clip_id) else "right"


def _seconds_left(database: Database, rater: str, to_come: int, answered: Mapping[str, str]) -> float | None:
    """Median time of the rater's last votes, times the votes to come; None: he has given too few."""
    rows = database.rows("SELECT seconds FROM votes WHERE rater = ? ORDER BY vote DESC LIMIT ?", rater, _LAST)
    if len(rows) < _LEAST:
        return None
    each = statistics.fmean(len(item.questions) for item in database.items.values())
    median: float = statistics.median(row[0] for row in rows)
    return median * max(0.0, to_come * each - len(answered))
