"""How often does a year of nights promote falsely, how soon does it find a gain? By the gate's own functions.

    python -m benchmarks.nights                      the table of docs/gate.md, into that page's markers
    python -m benchmarks.nights --years 50 --page /tmp/nights.md

A year is a series of nights on the same prompts, which differ in how hard they are. Every night has a new
candidate and new seeds, and is examined as `flows.rounds.night` has it: the gate, and where that says yes a
confirmation on fresh seeds at the level that the error budget leaves. Clips pass or fail. Where the truth is
that nothing changed, any promotion is false; "wanders" redraws how hard each prompt is for every candidate,
so that some rise and some fall and the mean over all prompts that there might be stays.
"""

from __future__ import annotations

import argparse
import functools
import math
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
BLOCK: Final = 73  # nights drawn at a time
RATE: Final = 0.4
GAIN: Final = 0.05
# Of the logarithm of the odds: how far a candidate that wanders moves each prompt.
WANDER: Final = 0.5
# Prompts, clips a prompt for the gate, and for the confirmation.
LAYOUTS: Final = ((120, 4, 4), (120, 4, 8), (120, 4, 16), (20, 4, 4), (20, 4, 16), (20, 4, 64))
Truth = Literal["nothing", "wanders", "gain"]


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
    parser.add_argument("--years", type=int, default=800)
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
        again: clips of each prompt for the confirmation.
        truth: what the candidates are.
        rng: draws prompts and clips.
        nights: that the budget is spent over.
    """
    settings = GateSettings()
    level = budget.level(ERROR, nights, settings.confidence)
    assert level is not None
    hard = rng.beta(4 * RATE, 4 * (1 - RATE), size=prompts)
    gate = 0
    for begun in range(0, nights, BLOCK):
        candidates = _candidates(hard, truth, min(BLOCK, nights - begun), rng)
        before, after = (rng.binomial(clips, rate, candidates.shape) for rate in (hard, candidates))
        for night in _hopeful(after - before, clips, settings.confidence):
            if not decide(_paired(before[night], after[night], clips), [], settings).promoted:
                continue
            gate = gate or begun + night + 1
            fresh = _paired(rng.binomial(again, hard), rng.binomial(again, candidates[night]), again)
            if decide(fresh, [], settings, confidence=1 - 2 * level).promoted:
                return Year(gate, begun + night + 1)
    return Year(gate, 0)


def _hopeful(passed_more: Ints, clips: int, confidence: float) -> list[int]:
    """The nights that may have a yes: the gate's formula for all at once, for most have none by far.

    `passed_more`: [nights, prompts], clips that pass after less those before. The gate itself then decides.
    """
    prompts = passed_more.shape[1]
    error = passed_more.std(axis=1, ddof=1) / math.sqrt(prompts)
    low = passed_more.mean(axis=1) - intervals.quantile(prompts - 1, confidence) * error
    return [int(night) for night in np.flatnonzero(low / clips > -1e-6)]


def _paired(before: Ints, after: Ints, clips: int) -> Paired:
    """Clips that pass or fail, of as many as pass a prompt."""
    first, second = (
        (np.arange(clips) < count[:, None]).astype(np.float64).ravel() for count in (before, after)
    )
    names = tuple(f"{prompt:03d}" for prompt in range(len(before)) for _ in range(clips))
    return Paired("passes", first, second, names, ("all",) * len(names))


def _candidates(hard: Floats, truth: Truth, nights: int, rng: np.random.Generator) -> Floats:
    """How often each prompt's clips pass under each night's candidate, [nights, prompts]."""
    size = (nights, len(hard))
    match truth:
        case "nothing":
            return np.broadcast_to(hard, size)
        case "gain":  # shrinks what is missing on each prompt by the same share
            return np.broadcast_to(hard + GAIN * (1 - hard) / (1 - RATE), size)
        case "wanders":
            odds = np.log(hard / (1 - hard)) + rng.normal(0, WANDER, size=size)
            moved: Floats = 1 / (1 + np.exp(-odds))
            # Logarithms of odds move to the middle on the average: not what is asked about.
            return np.clip(moved + _shift(), 0, 1)


@functools.cache
def _shift() -> float:
    """What the mean over all prompts loses where odds are moved by WANDER, to be given back."""
    rng = np.random.default_rng(0)
    hard = rng.beta(4 * RATE, 4 * (1 - RATE), size=10**6)
    odds = np.log(hard / (1 - hard)) + rng.normal(0, WANDER, size=hard.shape)
    return float(np.mean(hard) - np.mean(1 / (1 + np.exp(-odds))))


def table(years: int) -> Iterator[str]:
    """Markdown: false promotions in a year of nights by layout; how soon a real gain is found."""
    level = budget.level(ERROR, NIGHTS, GateSettings().confidence)
    fewer = max(1, years // 4)
    yield f"**{NIGHTS} nights that change nothing** ({years} such years; error {ERROR:g}, so that a"
    yield f"confirmation has a one-sided level of {level:.3g}): in how many anybody is promoted, with the"
    yield f"95% interval of Clopper and Pearson. Last column ({fewer} years): every prompt of every"
    yield f"candidate rises or falls by chance, by {WANDER:g} in the logarithm of its odds.\n"
    heads = ("prompts x clips", "gate alone, 30 nights", "gate alone, a year", "confirmed, a year")
    yield f"| {' | '.join(heads)} | the same, prompts wander |"
    yield "|---" * 5 + "|"
    for prompts, clips in dict.fromkeys((prompts, clips) for prompts, clips, _ in LAYOUTS):
        still = _years(years, prompts, clips, clips, "nothing")
        moved = _years(fewer, prompts, clips, clips, "wanders")
        cells = (
            _share([0 < one.gate <= 30 for one in still]),
            _share([one.gate > 0 for one in still]),
            _share([one.promoted > 0 for one in still]),
            _share([one.promoted > 0 for one in moved]),
        )
        yield f"| {prompts} x {clips} | {' | '.join(cells)} |"
    yield ""
    yield f"**Candidates that are {100 * GAIN:g} points better** ({fewer} series, {RATE:.0%} pass before):"
    yield "nights until one is promoted, in half and in 95% of the series.\n"
    yield "| prompts x clips, to confirm | half | 95% | gate alone, half | gate alone, 95% |"
    yield "|---" * 5 + "|"
    for prompts, clips, again in LAYOUTS:
        found = _years(fewer, prompts, clips, again, "gain")
        firsts = [
            _nights(nights, share)
            for nights in ([one.promoted for one in found], [one.gate for one in found])
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
