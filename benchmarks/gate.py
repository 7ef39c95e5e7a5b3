"""How often the gate is right where the truth is known: made-up measurements, the gate's own functions.

    python -m benchmarks.gate                        the tables of docs/gate.md, into that page's markers
    python -m benchmarks.gate --trials 200 --page /tmp/gate.md

Intervals: of what share does the 95% interval of a gain hold the true gain, and how often is a candidate that
changes nothing promoted? Guards: how often does any break though nothing changed, and how often is
one found that lost a part? Prompts differ in how hard they are, policies in what they make of each, and
motion is heavy-tailed (logarithms spread by 0.8 between prompts and 0.6 within, as measured on clips).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from models.gate import intervals
from models.gate.intervals import Floats
from models.gate.settings import GateSettings
from models.gate.verdict import Paired, Shares, guard
from tasks.settings import EvaluateSettings

PAGE: Final = Path(__file__).resolve().parents[1] / "docs/gate.md"
PROMPTS: Final = (4, 5, 6, 8, 12, 20, 50, 100, 200)
CLIPS: Final = (1, 2, 4, 8)
# Mean success before, and the true gain.
TRUTHS: Final = ((0.1, 0.0), (0.4, 0.0), (0.4, 0.15), (0.85, 0.05))
# Categories x prompts a category x clips.
LAYOUTS: Final = ((1, 4, 1), (2, 2, 4), (5, 1, 8), (5, 2, 4), (5, 4, 4), (10, 2, 2), (5, 20, 4), (10, 20, 1))
KEPT: Final = (1.0, 0.85, 0.7, 0.5, 0.3)
GUARDS: Final = EvaluateSettings().guards


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--page", type=Path, default=PAGE)
    asked = parser.parse_args(arguments)
    told = "\n".join([*interval_table(asked.trials), "", *guard_table(max(1, asked.trials // 10))])
    written_between(asked.page, "benchmarks.gate", told)


def written_between(page: Path, command: str, told: str) -> None:
    """Write `told` between the markers of `python -m command` in a page; at its end if it has none yet."""
    first, last = (f"<!-- {place} of python -m {command} -->" for place in ("begin", "end"))
    said = page.read_text("utf-8") if page.exists() else ""
    if first not in said:
        said += first + last
    head, tail = said.split(first)[0], said.split(last)[-1]
    page.write_text(f"{head}{first}\n{told}\n{last}{tail}", "utf-8")


def gains(
    graded: bool, prompts: int, clips: int, rate: float, gain: float, rng: np.random.Generator
) -> Floats:
    """after - before of every clip, [prompts * clips], of which `gain` is the true mean."""
    hard = rng.beta(4 * rate, 4 * (1 - rate), size=(prompts, 1))
    # A gain shrinks what is missing on each prompt by the same share.
    easier = hard + gain * (1 - hard) / (1 - rate)
    size = (prompts, clips)
    if graded:
        before, after = (rng.beta(6 * p + 1e-3, 6 * (1 - p) + 1e-3, size=size) for p in (hard, easier))
    else:
        before, after = (rng.binomial(1, p, size=size).astype(float) for p in (hard, easier))
    difference: Floats = (after - before).ravel()
    return difference


def interval_table(trials: int) -> Iterator[str]:
    """Markdown: prompts by clips; the lowest and highest coverage over the truths, and false promotions."""
    for graded in (False, True):
        kind = "graded between 0 and 1" if graded else "yes or no"
        yield f"**Interval of a gain, {kind}** ({trials} trials a truth): how often the 95% interval holds"
        yield "the true gain, lowest to highest over four truths; in brackets, how often a candidate that"
        yield "changes nothing is promoted, at most.\n"
        yield "| prompts | " + " | ".join(f"{clips} clip{'s' * (clips > 1)}" for clips in CLIPS) + " |"
        yield "|---" * (len(CLIPS) + 1) + "|"
        for prompts in PROMPTS:
            cells = [_interval_cell(graded, prompts, clips, trials) for clips in CLIPS]
            yield f"| {prompts} | {' | '.join(cells)} |"
        yield ""


def _interval_cell(graded: bool, prompts: int, clips: int, trials: int) -> str:
    held, promoted = [], [0.0]
    for rate, gain in TRUTHS:
        rng = np.random.default_rng([graded, prompts, clips, int(100 * rate), int(100 * gain)])
        rows = np.repeat(np.arange(prompts), clips)
        found = [
            intervals.mean(gains(graded, prompts, clips, rate, gain, rng), rows, 0.95) for _ in range(trials)
        ]
        ends = [(one.low, one.high) for one in found if one.low is not None and one.high is not None]
        if len(ends) >= trials / 20:
            held.append(np.mean([low <= gain <= high for low, high in ends]))
        if not gain:
            promoted.append(sum(low > 0 for low, _ in ends) / trials)
    return f"{min(held):.1%} to {max(held):.1%} ({max(promoted):.1%})" if held else "refused"


def measurements(name: str, layout: tuple[int, int, int], kept: float, rng: np.random.Generator) -> Paired:
    """A guard's measurements before and after, of which `kept` is the true ratio in every category."""
    categories, prompts, clips = layout
    count = categories * prompts
    level = rng.normal(0, 0.8, size=(count, 1))
    before, after = (np.exp(level + rng.normal(0, 0.6, size=(count, clips))).ravel() for _ in range(2))
    rows = np.repeat(np.arange(count), clips)
    of = rows // prompts
    return Paired(
        name, before, kept * after, tuple(map("{:03d}".format, rows)), tuple(map("category {}".format, of))
    )


def guard_table(trials: int) -> Iterator[str]:
    """Markdown: layouts by what a guard keeps; how often it breaks, and any of all where nothing changed."""
    settings = GateSettings()
    yield f"**Guards** ({trials} trials): how often one breaks (surely below 0.8), by what is truly left;"
    yield f"first column: how often any of {len(GUARDS)} does where nothing changed.\n"
    heads = " | ".join(f"{kept:g} left" for kept in KEPT[1:])
    yield f"| layout | any of {len(GUARDS)}, nothing lost | {heads} |"
    yield "|---" * (len(KEPT) + 1) + "|"
    for layout in LAYOUTS:
        shares = [_broken(layout, kept, settings, trials) for kept in KEPT]
        categories, prompts, clips = layout
        told = f"{categories} x {prompts} prompts, {clips} clip{'s' * (clips > 1)}"
        yield f"| {told} | {' | '.join(f'{share:.1%}' for share in shares)} |"


def _broken(layout: tuple[int, int, int], kept: float, settings: GateSettings, trials: int) -> float:
    rng = np.random.default_rng([*layout, int(100 * kept)])
    return float(np.mean([_any_breaks(layout, kept, settings, rng) for _ in range(trials)]))


def _any_breaks(
    layout: tuple[int, int, int], kept: float, settings: GateSettings, rng: np.random.Generator
) -> bool:
    names: Iterable[str] = GUARDS
    if kept < 1:
        names = GUARDS[:1]
    found = [measurements(name, layout, kept, rng) for name in names]
    shares = Shares.of(found * (len(GUARDS) // len(found)))
    return any(guard(one, settings, shares=shares).ok is False for one in found)


if __name__ == "__main__":
    main()
