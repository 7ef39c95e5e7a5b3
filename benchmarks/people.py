"""How far few labels of people go beside a judge: made-up studies over clips of which the truth is known.

    python -m benchmarks.people --store DIR              the table of docs/labels.md, into that page's markers
    python -m benchmarks.people --store DIR --studies 100 --page /tmp/people.md

The store is one in which a judge and the oracle scored the same clips (`vidloop calibrate`). A study draws
as many prompts as there are, with replacement, with all of their clips: the judge has a value of each, and so
many clips drawn by lot have the oracle's answer as their label. What every clip of the store would say is the
truth. Worse judges are made of this one: of a share of the clips it answers for another clip.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.gate import written_between
from data.errors import DataError
from data.queries import run_query
from data.store import Store
from rewards.few_labels import Floats, Judged, draw, gain, rate

PAGE: Final = Path(__file__).resolve().parents[1] / "docs/labels.md"
LABELS: Final = (50, 100, 200, 400)
# Shares of clips for which the judge answers at random.
MIXED: Final = (0.0, 0.1, 0.3, 1.0)
_VALUES: Final = """
SELECT c.prompt_id, j.value, o.value FROM clips c
JOIN scores j ON j.clip_id = c.clip_id AND j.reward = 'judge'
JOIN scores o ON o.clip_id = c.clip_id AND o.reward = 'physics'
WHERE j.value IS NOT NULL AND o.value IS NOT NULL ORDER BY c.prompt_id, c.clip_id
"""


@dataclass(frozen=True)
class Pool:
    """Clips of which all is known: [prompts, clips of each]."""

    judge: Floats
    truth: Floats

    def worse(self, share: float, rng: np.random.Generator) -> Pool:
        """With a judge that answers for another clip, of this share of the clips."""
        judge = self.judge.ravel().copy()
        places = rng.choice(judge.size, round(share * judge.size), replace=False)
        judge[places] = judge[rng.permutation(places)]
        return Pool(judge.reshape(self.judge.shape), self.truth)

    @property
    def accuracy(self) -> float:
        """Share of clips on which judge and truth agree."""
        return float(((self.judge >= 0.5) == (self.truth >= 0.5)).mean())


@dataclass(frozen=True)
class Held:
    """Of what share of the studies an interval held the truth, and how wide it was beside the labels' own."""

    holds: float
    alone_holds: float
    ratio: float
    worth: float


def read_pool(store: Store) -> Pool:
    """The clips of a store that both scored, of prompts with the most. Raises DataError: there are none."""
    rows = run_query(store, _VALUES)[1]
    groups: dict[str, list[tuple[float, float]]] = {}
    for prompt, judge, truth in rows:
        groups.setdefault(prompt, []).append((judge, truth))
    if not groups:
        raise DataError(
            f"{store.url} has no clip that judge and oracle scored: `vidloop calibrate` scores them"
        )
    most = max(map(len, groups.values()))
    found = np.array([some for some in groups.values() if len(some) == most], np.float64)
    return Pool(found[..., 0], found[..., 1])


def studied(pool: Pool, labels: int, studies: int, seed: int, how: str) -> Held:
    """So many studies.

    Args:
        pool: of which clips.
        labels: in each study.
        studies: how many.
        seed: of what is drawn.
        how: "lot", "doubt" (uncertain clips first), or "gain", of the later half of each prompt's clips over
            the earlier half.
    """
    rng = np.random.default_rng(seed)
    prompts, clips = pool.judge.shape
    half = clips // 2
    truth = float(pool.truth.mean())
    if how == "gain":
        truth = float(pool.truth[:, half : 2 * half].mean() - pool.truth[:, :half].mean())
    found = []
    for _ in range(studies):
        chosen = rng.integers(prompts, size=prompts)
        judge, label = pool.judge[chosen], pool.truth[chosen]
        if how == "gain":
            sides = [slice(0, half), slice(half, 2 * half)]
            before, after = (
                _asked(judge[:, side], label[:, side], labels // 2, "lot", rng) for side in sides
            )
            one = gain(before, after)
        else:
            one = rate(_asked(judge, label, labels, how, rng))
        if one.lacking:
            raise DataError(f"{labels} labels of {prompts} prompts: {one.lacking}")
        found.append((one.low, one.high, one.alone_low, one.alone_high, one.worth))
    low, high, alone_low, alone_high, worth = np.array(found, np.float64).T
    return Held(
        holds=float(((low <= truth) & (truth <= high)).mean()),
        alone_holds=float(((alone_low <= truth) & (truth <= alone_high)).mean()),
        ratio=float(((high - low) / (alone_high - alone_low)).mean()),
        worth=float(np.median(worth)),
    )


def _asked(judge: Floats, truth: Floats, labels: int, how: str, rng: np.random.Generator) -> Judged:
    values, every = judge.ravel(), truth.ravel()
    prompts = np.repeat(np.arange(len(judge)), judge.shape[1]).tolist()
    places, chances = draw(values, labels, rng) if how == "doubt" else (None, None)
    if places is None:
        places = rng.choice(len(every), labels, replace=False)
    known = np.full(len(every), np.nan)
    known[places] = every[places]
    return Judged(values, known, prompts, chances)


def table(pool: Pool, studies: int) -> Iterator[str]:
    """The table, in Markdown."""
    prompts, clips = pool.judge.shape
    yield f"{prompts} prompts with {clips} clips each, {studies:,} studies a line. *Holds*: how often the 95%"
    yield "interval has the truth in it; *width*: beside that of the labels alone; *worth*: as many labels"
    yield "alone would be as tight (median).\n"
    yield "| judge agrees with the oracle | what | labels | holds | labels alone hold | width | worth |"
    yield "|---|---|---|---|---|---|---|"
    plans = [(share, "lot", count) for share in MIXED for count in LABELS]
    plans += [(0.0, how, count) for how in ("doubt", "gain") for count in LABELS]
    plans += [(share, how, 200) for how in ("doubt", "gain") for share in MIXED[1:]]
    called = {"lot": "rate", "doubt": "rate, uncertain clips first", "gain": "gain, half of the labels each"}
    for number, (share, how, count) in enumerate(plans):
        judged = pool.worse(share, np.random.default_rng(1)) if share else pool
        one = studied(judged, count, studies, number, how)
        yield (
            f"| {judged.accuracy:.0%} | {called[how]} | {count} | {one.holds:.1%} | {one.alone_holds:.1%} | "
            f"{one.ratio:.2f} | {one.worth:.0f} |"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", required=True, help="with clips that judge and oracle scored")
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--page", type=Path, default=PAGE)
    asked = parser.parse_args(arguments)
    told = "\n".join(table(read_pool(Store.open(asked.store)), asked.studies))
    written_between(asked.page, "benchmarks.people", told)


if __name__ == "__main__":
    main()
