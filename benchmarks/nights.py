"""How often does a year of nights promote falsely, how soon does it find a gain? By the gate's own functions.

    python -m benchmarks.nights                      the table of docs/gate.md, into that page's markers
    python -m benchmarks.nights --years 50 --page /tmp/nights.md

A year is a series of nights on the same prompts, which differ in how hard they are. Every night has a new
candidate and new seeds, and is examined as `flows.rounds.night` has it: the gate, and where that says yes a
confirmation with fresh clips beside the gate's, at the level that the error budget leaves. Clips pass or
fail. Where the truth is that nothing changed on the mean over all prompts that there might be, any promotion
is false.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np

from benchmarks.gate import PAGE, written_between
from models.gate import budget, intervals
from models.gate.intervals import Floats, Ints
from models.gate.settings import GateSettings
from models.gate.verdict import Paired, decide

ERROR: Final = 0.05
NIGHTS: Final = 365
RATE: Final = 0.4
GAIN: Final = 0.05
# Of the logarithm of the odds: how far a candidate that wanders moves each prompt.
WANDER: Final = 0.5
# Of prompts: how many a forgetful candidate never passes again.
FORGOTTEN: Final = 0.1
# Prompts, clips a prompt for the gate, fresh ones to confirm: the miniature's, real recipes', fewer.
LAYOUTS: Final = (
    *((120, 4, 4), (120, 4, 8), (120, 4, 16)),
    *((100, 4, 4), (100, 4, 8), (100, 4, 16)),
    *((20, 4, 4), (20, 4, 16), (20, 4, 64)),
    *((12, 4, 4), (12, 4, 16)),
)
# Of those, where a year of nights that change nothing is played.
IDLE: Final = ((120, 4, 4), (100, 4, 4), (100, 4, 16), (20, 4, 4), (20, 4, 16), (12, 4, 4))
Truth = Literal["nothing", "wanders", "alike", "forgets", "gain", "gain wanders"]
NOTHING: Final[dict[Truth, str]] = {
    "nothing": "every prompt stays",
    "wanders": "prompts wander",
    "alike": "prompts wander, alike every night",
    "forgets": "a tenth is forgotten",
}


@dataclass(frozen=True)
class Year:
    """What came of one series of nights.

    Attributes:
        gate: the first night on which the gate said yes, from 1; 0: none did.
        promoted: the first night on which it was confirmed too; 0: none was.
    """

    gate: int
    promoted: int


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--years", type=int, default=10_000)
    parser.add_argument("--page", type=Path, default=PAGE)
    asked = parser.parse_args(arguments)
    written_between(asked.page, "benchmarks.nights", "\n".join(table(asked.years)))


def year(
    prompts: int, clips: int, again: int, truth: Truth, rng: np.random.Generator, nights: int = NIGHTS
) -> Year:
    """Nights until the first promotion, `nights` at most.

    Args:
        prompts: that examine.
        clips: of each prompt, for the gate.
        again: fresh clips of each prompt for the confirmation.
        truth: what the candidates are.
        rng: draws prompts and clips.
        nights: that the budget is spent over.
    """
    settings = GateSettings()
    level = budget.level(ERROR, nights, settings.confidence)
    assert level is not None
    sure = 1 - 2 * level
    hard = rng.beta(4 * RATE, 4 * (1 - RATE), size=prompts)
    candidates = _candidates(hard, truth, nights, rng)
    before = _passing(clips, np.broadcast_to(hard, candidates.shape), rng)
    after = _passing(clips, candidates, rng)
    yes = likely(after - before, settings.confidence)
    before, after, candidates = before[yes], after[yes], candidates[yes]
    whole_before = before + rng.binomial(again, np.broadcast_to(hard, candidates.shape))
    whole_after = after + rng.binomial(again, candidates)
    for place in likely(whole_after - whole_before, sure):
        gate = decide(_paired(before[place], after[place], clips), [], settings)
        whole = _paired(whole_before[place], whole_after[place], clips + again)
        if gate.promoted and decide(whole, [], settings, confidence=sure).promoted:
            return Year(int(yes[0]) + 1, int(yes[place]) + 1)
    return Year(int(yes[0]) + 1 if len(yes) else 0, 0)


def likely(passed_more: Ints, confidence: float) -> Ints:
    """The nights with a yes by the gate's formula, for all at once: most have none by far.

    Where it is to be confirmed the gate itself decides again.

    Args:
        passed_more: [nights, prompts], clips that pass after less those before.
        confidence: of the interval.
    """
    prompts = passed_more.shape[1]
    total = passed_more.sum(axis=1)
    squares = np.square(passed_more).sum(axis=1) - total**2 / prompts
    reach = intervals.quantile(prompts - 1, confidence) * np.sqrt(squares * prompts / (prompts - 1))
    return np.flatnonzero((total > 0) & (total >= reach))


def _passing(clips: int, rates: Floats, rng: np.random.Generator) -> Ints:
    """How many of so many clips pass, [nights, prompts]; faster than `rng.binomial` where they are few."""
    below = np.rint(rates * 2.0**16).astype(np.uint32)  # a rate of 1 is above all draws
    passing = np.zeros(rates.shape, dtype=np.int32)
    for _ in range(clips):
        passing += np.frombuffer(rng.bytes(2 * rates.size), np.uint16).reshape(rates.shape) < below
    return passing.astype(np.int64)


def _paired(before: Ints, after: Ints, clips: int) -> Paired:
    """Clips that pass or fail, of as many as pass a prompt."""
    first, second = (
        (np.arange(clips) < count[:, None]).astype(np.float64).ravel() for count in (before, after)
    )
    return Paired("passes", first, second, *_names(len(before), clips))


@functools.cache
def _names(prompts: int, clips: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The prompt and the category of every clip."""
    names = tuple(f"{prompt:03d}" for prompt in range(prompts) for _ in range(clips))
    return names, ("all",) * len(names)


def _candidates(hard: Floats, truth: Truth, nights: int, rng: np.random.Generator) -> Floats:
    """How often each prompt's clips pass under each night's candidate, [nights, prompts]."""
    size = (nights, len(hard))
    match truth:
        case "nothing":
            return np.broadcast_to(hard, size)
        case "gain":
            return np.broadcast_to(_better(hard), size)
        case "wanders":
            return _wandered(hard, rng.normal(_level_again(), WANDER, size))
        case "gain wanders":
            return _better(_wandered(hard, rng.normal(_level_again(), WANDER, size)))
        case "alike":
            return np.broadcast_to(_wandered(hard, rng.normal(_level_again(), WANDER, len(hard))), size)
        case "forgets":  # what the forgotten lose on the average, the others gain
            gain = FORGOTTEN * RATE / ((1 - FORGOTTEN) * (1 - RATE))
            return np.where(rng.random(size) < FORGOTTEN, 0.0, hard + gain * (1 - hard))


def _better(rates: Floats) -> Floats:
    """Shrinks what is missing on each prompt by the same share."""
    better: Floats = rates + GAIN * (1 - rates) / (1 - RATE)
    return better


def _wandered(rates: Floats, moves: Floats) -> Floats:
    moved: Floats = 1 / (1 + (1 - rates) / rates * np.exp(-moves))
    return moved


@functools.cache
def _level_again() -> float:
    """Mean of the moves: without it they would bring prompts to the middle on the average."""
    from scipy.optimize import brentq

    rng = np.random.default_rng(0)
    hard = rng.beta(4 * RATE, 4 * (1 - RATE), size=10**6)
    moves = rng.normal(0, WANDER, size=hard.shape)
    mean: float = brentq(lambda shift: float(np.mean(_wandered(hard, moves + shift) - hard)), -1, 1)
    return mean


def table(years: int) -> Iterator[str]:
    """Markdown: false promotions in a year of nights by layout; how soon a real gain is found."""
    level = budget.level(ERROR, NIGHTS, GateSettings().confidence)
    some, few = max(1, years // 5), max(1, years // 20)
    yield f"**{NIGHTS} nights that change nothing on the average over all prompts** ({years} such years;"
    yield f"error {ERROR:g}, so that a confirmation has a one-sided level of {level:.2g}): in how many"
    yield "anybody is promoted, with the 95% interval of Clopper and Pearson. Where prompts wander, every"
    yield f"prompt of every candidate rises or falls by chance, by {WANDER:g} in the logarithm of its odds;"
    yield f"where some are forgotten, a candidate never passes {FORGOTTEN:.0%} of its prompts, and gains as"
    yield f"much on the others ({some} years in these last two columns).\n"
    heads = ["prompts x clips, to confirm", "gate alone, 30 nights", *NOTHING.values()]
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for prompts, clips, again in IDLE:
        found = {
            truth: _years(years if truth in ("nothing", "wanders") else some, prompts, clips, again, truth)
            for truth in NOTHING
        }
        cells = (
            _share([0 < one.gate <= 30 for one in found["nothing"]]),
            *(_share([one.promoted > 0 for one in series]) for series in found.values()),
        )
        yield f"| {prompts} x {clips}, {prompts} x {again} | {' | '.join(cells)} |"
    yield ""
    yield f"**Candidates that are {100 * GAIN:g} points better** ({few} series, {RATE:.0%} pass before):"
    yield "nights until one is promoted, in half and in 95% of the series.\n"
    heads = ["prompts x clips, to confirm", "half", "95%", "half, prompts wander", "95%, prompts wander"]
    heads += ["gate alone, half", "gate alone, 95%"]
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for prompts, clips, again in LAYOUTS:
        same, moved = (_years(few, prompts, clips, again, truth) for truth in ("gain", "gain wanders"))
        firsts = [
            _nights(nights, share)
            for nights in (
                [one.promoted for one in same],
                [one.promoted for one in moved],
                [one.gate for one in same],
            )
            for share in (0.5, 0.95)
        ]
        yield f"| {prompts} x {clips}, {prompts} x {again} | {' | '.join(firsts)} |"


def _years(years: int, prompts: int, clips: int, again: int, truth: Truth) -> list[Year]:
    rng = np.random.default_rng([prompts, clips, again, *truth.encode()])
    return [year(prompts, clips, again, truth, rng) for _ in range(years)]


def _share(happened: Sequence[bool]) -> str:
    from scipy.stats import binomtest

    found = binomtest(sum(happened), len(happened))
    low, high = found.proportion_ci(0.95)
    return f"{found.statistic:.1%} ({low:.1%} to {high:.1%})"


def _nights(firsts: Sequence[int], share: float) -> str:
    """The night by which this share of the series has promoted somebody."""
    found = sorted(night or NIGHTS + 1 for night in firsts)[-(-int(100 * share) * len(firsts) // 100) - 1]
    return str(found) if found <= NIGHTS else f"more than {NIGHTS}"


if __name__ == "__main__":
    main()
