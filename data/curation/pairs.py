"""Which two clips of a prompt make a pair: all are counted, and no more are built than are asked for.

A clip wins over another of its prompt where its r' is above the other's by more than the margin and, where
both were judged in the same segments, it is better in one of them (`data.curation.segments`). Winners of a
prompt are numbered by lot, losers too. Pairs with the same (loser - winner) mod m, m the larger of both
numbers, share no clip on either side, so taking them diagonal by diagonal spreads the pairs over as many
clips as there are.

Counting is sorting and bisection, for r' alone decides which of the sorted clips a clip wins over; where
clips were judged in segments each pair is looked at, a bounded number at a time. Of P pairs each of the m
diagonals holds P / m on average, lots being lots, and looking at one is a comparison for each winner: K pairs
take K m / P of them, and as no winner or loser is without a pair, P >= m. So a prompt takes about K
comparisons a winner at most, not all pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

# Clips at a time, in whole prompts, and pairs of those judged in segments.
_CLIPS: Final = 1 << 16
_PAIRS: Final = 1 << 20

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Cuts:
    """What the segments of n clips say, k of them in all.

    Attributes:
        cut: int64 [n], equal of clips that are cut alike; -1: not judged in segments.
        first: int64 [n + 1], where the segments of each clip begin; as many for clips that are cut alike.
        high, low: float64 [k], r' of each segment; of several that begin together the most and the least.
            NaN: without a value.
    """

    cut: Ints
    first: Ints
    high: Floats
    low: Floats

    def within(self, start: int, stop: int) -> Cuts:
        """Those of the clips from `start` to `stop`."""
        return Cuts(self.cut[start:stop], self.first[start : stop + 1], self.high, self.low)

    def forbid(self, winners: Ints, losers: Ints) -> Flags:
        """Whether each winner, cut like its loser, is better in no segment."""
        alike = np.flatnonzero((self.cut[winners] == self.cut[losers]) & (self.cut[winners] >= 0))
        one, other = self.first[winners[alike]], self.first[losers[alike]]
        count = self.first[winners[alike] + 1] - one
        better, compared = np.zeros(len(alike), bool), np.zeros(len(alike), bool)
        for step in range(int(count.max(initial=0))):
            there = np.flatnonzero(count > step)
            high, low = self.high[one[there] + step], self.low[other[there] + step]
            better[there] |= high > low
            compared[there] |= ~(np.isnan(high) | np.isnan(low))
        found = np.zeros(len(winners), bool)
        found[alike] = compared & ~better
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Picked:
    """Rows of the clips of the picked pairs, int64 [pairs] each, and how many pairs there are.

    Attributes:
        possible: pairs that may be picked.
        forbidden: pairs beside them whose winner is better in no segment.
    """

    winners: Ints
    losers: Ints
    possible: int
    forbidden: int


def pick(r: Floats, sizes: Ints, margin: float, limit: int, cuts: Cuts | None = None) -> Picked:
    """At most `limit` pairs of each prompt.

    Args:
        r: float64 [n], r' of the clips: those of one prompt together, in the order of their lots.
        sizes: int64 [prompts], clips of each prompt, at least one; their sum is n.
        margin: not negative; a pair differs by more.
        limit: not negative.
        cuts: of the same clips; None: none was judged in segments.
    """
    found: list[Picked] = [_nothing()]
    stops = np.cumsum(sizes)
    for first, last in _blocks(stops):
        start, stop = int(stops[first] - sizes[first]), int(stops[last - 1])
        held = None if cuts is None else cuts.within(start, stop)
        one = _Prompts(r[start:stop], sizes[first:last], margin, held).pick(limit)
        found.append(Picked(one.winners + start, one.losers + start, one.possible, one.forbidden))
    return Picked(
        np.concatenate([one.winners for one in found]),
        np.concatenate([one.losers for one in found]),
        sum(one.possible for one in found),
        sum(one.forbidden for one in found),
    )


def _nothing() -> Picked:
    return Picked(np.zeros(0, np.int64), np.zeros(0, np.int64), 0, 0)


def _blocks(stops: Ints) -> Iterator[tuple[int, int]]:
    """(first, last + 1) of prompts that have about `_CLIPS` clips together; one with more stands alone."""
    first = 0
    while first < len(stops):
        done = stops[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(stops, done + _CLIPS, side="right")))
        yield first, last
        first = last


class _Prompts:
    """Some prompts with all of their clips, as `pick` takes them."""

    def __init__(self, r: Floats, sizes: Ints, margin: float, cuts: Cuts | None) -> None:
        self.r, self.sizes, self.margin, self.cuts = r, sizes, margin, cuts
        self.prompt: Ints = np.repeat(np.arange(len(sizes)), sizes)
        self.start: Ints = (np.cumsum(sizes) - sizes)[self.prompt]

    def pick(self, limit: int) -> Picked:
        wins, losses, forbidden = self._count()
        winners, losers = np.flatnonzero(wins), np.flatnonzero(losses)
        prompts = len(self.sizes)
        pairs = np.bincount(self.prompt, wins, prompts).astype(np.int64)
        ahead, behind = (np.bincount(self.prompt[rows], minlength=prompts) for rows in (winners, losers))
        diagonals = np.maximum(ahead, behind)
        place = np.arange(len(winners)) - (np.cumsum(ahead) - ahead)[self.prompt[winners]]
        before = np.cumsum(behind) - behind
        left = np.minimum(pairs, limit)
        chosen: list[tuple[Ints, Ints]] = []
        diagonal = 0
        while True:
            open_ = left[self.prompt[winners]] > 0
            winners, place = winners[open_], place[open_]
            if not len(winners):
                break
            prompt = self.prompt[winners]
            number = (place + diagonal) % diagonals[prompt]
            there = np.flatnonzero(number < behind[prompt])
            one, other = winners[there], losers[before[prompt[there]] + number[there]]
            teaches = np.flatnonzero(self._above(one, other))
            one, other = one[teaches], other[teaches]
            of = self.prompt[one]
            # The first of each prompt, in the order of its winners, as many as it lacks.
            hits = np.bincount(of, minlength=prompts)
            kept = np.arange(len(of)) - (np.cumsum(hits) - hits)[of] < left[of]
            chosen.append((one[kept], other[kept]))
            left -= np.minimum(hits, left)
            diagonal += 1
        if not chosen:
            return Picked(*(np.zeros(0, np.int64),) * 2, int(pairs.sum()), forbidden)
        ones, others = (np.concatenate(side) for side in zip(*chosen, strict=True))
        return Picked(ones, others, int(pairs.sum()), forbidden)

    def _above(self, winners: Ints, losers: Ints) -> Flags:
        above: Flags = self.r[winners] - self.r[losers] > self.margin
        return above if self.cuts is None else above & ~self.cuts.forbid(winners, losers)

    def _count(self) -> tuple[Ints, Ints, int]:
        """Over how many clips each clip wins, and how many win over it [n]; how many wins are forbidden."""
        clips = len(self.r)
        order = np.lexsort((self.r, self.prompt))
        # Subtraction rounds, and keeps the order: those that a clip wins over are the first of its prompt.
        r = self.r[order]
        low, high = self.start.copy(), np.arange(clips)
        while (searching := np.flatnonzero(low < high)).size:
            middle = (low[searching] + high[searching]) // 2
            above = r[searching] - r[middle] > self.margin
            low[searching[above]] = middle[above] + 1
            high[searching[~above]] = middle[~above]
        wins = low - self.start
        ends = np.cumsum(np.bincount(low, minlength=clips + 1))[:clips]
        losses = self.start + self.sizes[self.prompt] - ends
        forbidden = 0
        for winners, losers in self._forbidden(order, low - self.start):
            wins -= np.bincount(winners, minlength=clips)
            losses -= np.bincount(losers, minlength=clips)
            forbidden += len(winners)
        back = np.empty_like(order)
        back[order] = np.arange(clips)
        return wins[back], losses[back], forbidden

    def _forbidden(self, order: Ints, wins: Ints) -> Iterator[tuple[Ints, Ints]]:
        """Places in `order` of winners and losers of forbidden pairs, some at a time."""
        if self.cuts is None:
            return
        judged = np.flatnonzero((self.cuts.cut[order] >= 0) & (wins > 0))
        total = np.cumsum(wins[judged])
        while judged.size:
            some = max(1, int(np.searchsorted(total, _PAIRS, side="right")))
            now, judged, total = judged[:some], judged[some:], total[some:] - total[some - 1]
            many = wins[now]
            winners = np.repeat(now, many)
            losers = np.arange(len(winners)) - np.repeat(np.cumsum(many) - many - self.start[now], many)
            out = self.cuts.forbid(order[winners], order[losers])
            yield winners[out], losers[out]
