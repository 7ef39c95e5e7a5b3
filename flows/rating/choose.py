"""Which item a rater sees next: one that too few have answered, then the one on which they are least agreed.

Between them, evenly and where nobody could foresee it, come items whose answer is known and items that the
rater has answered before.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from dataclasses import dataclass

from data.keys import digest
from flows.rating.database import Database

# So many others lie between an item and its repetition, where there are so many.
_BETWEEN = 3


@dataclass(frozen=True)
class Left:
    """What is left for a rater.

    Attributes:
        plain: items that want votes, best first.
        gold: items whose answer is known.
        again: items to be shown again now.
        repeats: how many will be shown again in all, from here on.
        next: (item, how often it was shown before), or None: nothing is left.
    """

    plain: list[str]
    gold: list[str]
    again: list[str]
    repeats: int
    next: tuple[str, int] | None

    @property
    def count(self) -> int:
        """Items that are left, repetitions among them."""
        return len(self.plain) + len(self.gold) + self.repeats


def left(database: Database, rater: str) -> Left:
    """What is left for a rater who has answered all that he was shown."""
    seen = [
        (item, repeat)
        for item, repeat in database.rows(
            "SELECT item, repeat FROM shows WHERE rater = ? ORDER BY number", rater
        )
    ]
    own, repeated = [item for item, repeat in seen if not repeat], {item for item, repeat in seen if repeat}
    gold = [
        item for item in _mixed(database, rater, set(database.items) - set(own)) if database.items[item].gold
    ]
    plain = _wanted(database, rater, set(own) | set(gold))
    plain_seen = [item for item in own if not database.items[item].gold]
    total = round(database.plan.repeats * (len(plain_seen) + len(plain)))
    repeats = min(max(0, total - len(repeated)), len(plain_seen) + len(plain) - len(repeated))
    far = [item for item, _ in seen[:-_BETWEEN]] if plain or gold else [item for item, _ in seen[:-1]]
    again = _mixed(database, rater, (set(far) & set(plain_seen)) - repeated) if repeats else []
    if not again and not (plain or gold):
        repeats = 0  # the last item of all is not asked twice in a row
    golds, everything = sum(bool(item.gold) for item in database.items.values()), len(own) + len(repeated)
    everything += len(plain) + len(gold) + repeats
    turn = len(seen) + 1
    if gold and (golds - len(gold)) < _due(turn, golds, everything):
        following: tuple[str, int] | None = (gold[0], 0)
    elif again and len(repeated) < _due(turn, len(repeated) + repeats, everything):
        following = again[0], 1
    elif plain or gold or again:
        following = (plain[0], 0) if plain else (gold[0], 0) if gold else (again[0], 1)
    else:
        following = None
    return Left(plain, gold, again, repeats, following)


def _due(turn: int, count: int, everything: int) -> int:
    """How many of `count` are to have been shown at this turn, spread evenly over all turns."""
    return (turn * count + everything // 2) // max(1, everything)


def _mixed(database: Database, rater: str, items: set[str]) -> list[str]:
    return sorted(items, key=lambda item: _lot(database.plan.seed, rater, item))


@functools.lru_cache(maxsize=1_000_000)
def _lot(seed: int, rater: str, item: str) -> str:
    return digest([seed, rater, item])


def _wanted(database: Database, rater: str, but: set[str]) -> list[str]:
    """Items without known answers that want votes: fewest first, then the most uncertain, then by hash."""
    votes = database.rows("""
        SELECT item, question, count(*), avg(share) FROM votes
        WHERE repeat = 0 AND share IS NOT NULL
          AND rater NOT IN (SELECT rater FROM raters WHERE excluded IS NOT NULL)
        GROUP BY item, question
    """)
    covered: dict[str, int] = defaultdict(int)
    doubt: dict[str, list[float]] = defaultdict(list)
    for item, _, raters, share in votes:
        covered[item] = max(covered[item], raters)
        doubt[item].append(4 * share * (1 - share))
    held = [
        item
        for item in _mixed(database, rater, set(database.items) - but)
        if not database.items[item].gold and covered[item] < database.plan.votes
    ]

    def rank(item: str) -> tuple[int, float]:
        questions = len(database.items[item].questions)
        # A question that nobody has answered is as open as can be.
        return covered[item], -(sum(doubt[item]) + questions - len(doubt[item])) / questions

    return sorted(held, key=rank)
