"""The gate: did the model get better, and did it cheat? Pure functions from measurements to a verdict.

A candidate is promoted only if the primary metric's interval lies above zero, no guard is broken, and none
has drifted too far over a series of rounds. A guard watches what a cheated metric gives away: its ratio
after / before must stay between two limits, overall and in every category of enough prompts. So many
questions would by chance alone break a guard now and then; the level holds for all of them together
(Bonferroni; one half of it goes to what is asked overall, where a cheat shows best, the other to the
categories). A measurement that failed is left out, with its partner, and counted; it never becomes a number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from data.records import Evaluation
from models.gate import intervals
from models.gate.drift import drifted
from models.gate.intervals import FEWEST, Floats, Interval
from models.gate.settings import GateSettings, Within

ONE_SIDED: Final[Within] = (0.8, None)
"""Limits of a measure that names none: it must not fall."""
OVERALL: Final = "overall"


@dataclass(frozen=True, slots=True, eq=False)
class Paired:
    """One metric of two policies, row by row on the same prompt and seed.

    Attributes:
        metric: its name.
        before, after: float64 [n]; NaN where the measurement failed.
        prompts, categories: n names.
        excluded: rows left out: only one of the policies has them, or a measurement failed.
    """

    metric: str
    before: Floats
    after: Floats
    prompts: tuple[str, ...]
    categories: tuple[str, ...]
    excluded: int = 0

    def category(self, name: str) -> Paired:
        """The rows of one category."""
        return self._take(np.array(self.categories) == name, 0)

    def measured(self) -> Paired:
        """The rows measured under both policies."""
        keep = np.isfinite(self.before) & np.isfinite(self.after)
        return self._take(keep, self.excluded + int((~keep).sum()))

    def clusters(self) -> npt.NDArray[np.int64]:
        """Which prompt each row belongs to, as integers."""
        return np.unique(np.array(self.prompts, dtype=str), return_inverse=True)[1].astype(np.int64)

    def _take(self, keep: npt.NDArray[np.bool_], excluded: int) -> Paired:
        rows = np.flatnonzero(keep)
        return Paired(
            self.metric,
            self.before[rows],
            self.after[rows],
            tuple(self.prompts[i] for i in rows),
            tuple(self.categories[i] for i in rows),
            excluded,
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """Means before and after, their difference and its interval; None where nothing was measured.

    Attributes:
        n: rows measured under both policies; prompts: how many prompts they belong to.
        excluded: see `Paired`.
        no_interval: why there is none; None where there is one.
    """

    metric: str
    excluded: int
    before: float | None = None
    after: float | None = None
    delta: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    n: int = 0
    prompts: int = 0
    no_interval: str | None = None


@dataclass(frozen=True, slots=True)
class Guard:
    """A guard's finding.

    Attributes:
        excluded: see `Paired`.
        before, after: means; None where nothing was measured.
        ratio, ci_low, ci_high: after / before with its interval, overall.
        low, high: between what the ratio must stay; None: it may rise.
        ok: False if broken; None if it could not be measured.
        broken_in: "overall" and categories in which it is broken.
        reason: why it is broken or was not measured; None if it holds.
        unseen: categories of too few prompts for a verdict of their own; None where there are none.
    """

    name: str
    excluded: int
    before: float | None = None
    after: float | None = None
    ratio: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    low: float | None = None
    high: float | None = None
    ok: bool | None = None
    broken_in: tuple[str, ...] = ()
    reason: str | None = None
    unseen: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate decided, on what grounds, and in words."""

    promoted: bool
    sentence: str
    primary: Comparison
    categories: dict[str, Comparison]
    guards: dict[str, Guard]


def pair_up(before: Sequence[Evaluation], after: Sequence[Evaluation], metric: str) -> Paired:
    """The rows of `metric`, matched by (prompt, seed) and sorted by them.

    Raises:
        ValueError: one policy has two rows for the same prompt and seed.
    """
    first, second = (_keyed(rows, metric) for rows in (before, after))
    both = sorted(first.keys() & second.keys())
    return Paired(
        metric,
        np.array([first[key].value for key in both], dtype=np.float64),  # None becomes NaN
        np.array([second[key].value for key in both], dtype=np.float64),
        tuple(first[key].prompt_id for key in both),
        tuple(first[key].category for key in both),
        excluded=len(first.keys() ^ second.keys()),
    )


def diversity(latents: npt.NDArray[np.floating], prompts: Sequence[str]) -> dict[str, float | None]:
    """How different the clips of a prompt are: mean over its pairs of the RMS difference of their latents.

    Args:
        latents: [N, ...], normalised; independent unit-variance latents are sqrt(2) apart, equal ones 0.
        prompts: N names.

    Returns:
        A value for each prompt; None for a prompt with a single clip.
    """
    flat = np.asarray(latents, dtype=np.float64).reshape(len(latents), -1)
    names, row = np.unique(np.array(prompts, dtype=str), return_inverse=True)
    found: dict[str, float | None] = {}
    for index, name in enumerate(names):
        members = flat[row == index]
        upper = np.triu_indices(len(members), 1)
        # differences, not a Gram matrix: nearly equal clips must come out as nearly 0, without cancellation
        apart = np.sqrt(np.mean((members[upper[0]] - members[upper[1]]) ** 2, axis=1))
        found[str(name)] = float(apart.mean()) if len(apart) else None
    return found


def compare(paired: Paired, settings: GateSettings, confidence: float | None = None) -> Comparison:
    """Means before and after with the interval of their difference, at `confidence` or the settings'."""
    rows = paired.measured()
    if not rows.prompts:
        return Comparison(paired.metric, rows.excluded)
    sure = settings.confidence if confidence is None else confidence
    difference = intervals.mean(rows.after - rows.before, rows.clusters(), sure)
    return Comparison(
        paired.metric,
        rows.excluded,
        float(rows.before.mean()),
        float(rows.after.mean()),
        difference.value,
        difference.low,
        difference.high,
        len(rows.prompts),
        len(set(rows.prompts)),
        difference.lacking or None,
    )


class Shares(NamedTuple):
    """Into how many shares 1 - confidence is cut: each question asked overall, or of a category, has one."""

    overall: int
    category: int

    @classmethod
    def of(cls, guards: Iterable[Paired]) -> Shares:
        """The shares that all questions of these guards together take."""
        asked = [where for paired in guards for where in places(paired)]
        overall = asked.count(OVERALL)
        halves = 1 if overall == len(asked) else 2
        return cls(halves * max(1, overall), halves * max(1, len(asked) - overall))

    def of_place(self, where: str) -> int:
        """The number of shares of which a question there has one."""
        return self.overall if where == OVERALL else self.category


def guard(
    paired: Paired, settings: GateSettings, within: Within = ONE_SIDED, shares: Shares | None = None
) -> Guard:
    """Whether `paired.metric` stays between its limits, overall and in every category.

    Args:
        paired: its measurements.
        settings: the level of all questions together.
        within: lowest and highest ratio after / before; None: it may rise.
        shares: of all questions; None: of this guard's own.
    """
    rows = paired.measured()
    found = Guard(paired.metric, rows.excluded, low=within[0], high=within[1])
    if not rows.prompts:
        if np.isfinite(paired.before).any():
            return replace(found, ok=False, reason="it was measured before, and never after")
        return replace(found, reason="nothing was measured")
    found = replace(found, before=float(rows.before.mean()), after=float(rows.after.mean()))
    if not rows.before.mean() > 0:
        return replace(found, reason=f"it was {found.before:g} before, so there is no ratio")
    parts, shares, wrong = places(paired), shares or Shares.of([paired]), 1 - settings.confidence
    ratios = {
        where: intervals.ratio(part.after, part.before, part.clusters(), 1 - wrong / shares.of_place(where))
        for where, part in ({OVERALL: rows} | parts).items()
    }
    broken = {where: said for where, one in ratios.items() if (said := _broken(one, within))}
    whole = ratios[OVERALL]
    categories = set(rows.categories)
    return replace(
        found,
        ratio=whole.value,
        ci_low=whole.low,
        ci_high=whole.high,
        ok=None if whole.lacking else not broken,
        broken_in=tuple(broken),
        reason=", ".join(f"{where} {said}" for where, said in broken.items()) or whole.lacking or None,
        unseen=tuple(sorted(categories - parts.keys())) or None if len(categories) > 1 else None,
    )


def places(paired: Paired) -> dict[str, Paired]:
    """Where a guard is asked for a verdict: "overall", and of several categories those of enough prompts."""
    rows = paired.measured()
    names = sorted(set(rows.categories))
    parts = {OVERALL: rows} | {name: rows.category(name) for name in names if len(names) > 1}
    return {
        where: part
        for where, part in parts.items()
        if len(set(part.prompts)) >= FEWEST and part.before.sum() > 0
    }


def decide(
    primary: Paired,
    guards: Sequence[Paired],
    settings: GateSettings,
    within: Mapping[str, Within] | None = None,
    confidence: float | None = None,
) -> Verdict:
    """The verdict on a candidate.

    Args:
        primary: the metric that decides, on prompts that no round trains on.
        guards: measurements of what a cheated metric gives away.
        settings: confidence, and the limits of drift.
        within: limits by guard; of a guard that is not in it, `ONE_SIDED`.
        confidence: of the deciding interval; None: that of the settings.
    """
    sure = settings.confidence if confidence is None else confidence
    overall = compare(primary, settings, sure)
    categories = {c: compare(primary.category(c), settings) for c in sorted(set(primary.categories))}
    shares, limits = Shares.of(guards), within or {}
    found = {
        paired.metric: guard(paired, settings, limits.get(paired.metric, ONE_SIDED), shares)
        for paired in guards
    }
    better = overall.ci_low is not None and overall.ci_low > 0
    broken = [g for g in found.values() if g.ok is False]
    ratios = {name: one.ratio for name, one in found.items()}
    gone = drifted(ratios, settings, {name: limits.get(name, ONE_SIDED) for name in ratios})
    promoted = better and not broken and not gone
    return Verdict(promoted, _sentence(overall, found, promoted, sure, gone), overall, categories, found)


def _sentence(
    primary: Comparison, guards: Mapping[str, Guard], promoted: bool, confidence: float, gone: Sequence[str]
) -> str:
    if primary.delta is None:
        return f"Not promoted: {primary.metric} was measured on no clip under both policies."
    moved = "rose" if primary.delta > 0 else "fell" if primary.delta < 0 else "stayed"
    told = f"{primary.metric} {moved} from {primary.before:.3f} to {primary.after:.3f} ({primary.delta:+.3f}"
    if primary.no_interval:
        told += f"; no interval: {primary.no_interval}; {primary.n} clips)"
    else:
        told += (
            f", {_percent(confidence)} interval {primary.ci_low:+.3f} to {primary.ci_high:+.3f}; "
            f"{primary.n} clips of {primary.prompts} prompts)"
        )
    if primary.excluded:
        told += f", {primary.excluded} left out because a measurement failed"
    broken = [f"{g.name} is broken ({g.reason})" for g in guards.values() if g.ok is False]
    unsure = [f"{g.name} was not measured ({g.reason})" for g in guards.values() if g.ok is None]
    unseen = sorted({category for g in guards.values() for category in g.unseen or ()})
    if unseen:
        few = ", ".join(unseen)
        unsure.append(f"no guard has a verdict of its own on {few} (fewer than {FEWEST} prompts)")
    if promoted:
        tail = " and no guard is broken" + (f"; {'; '.join(unsure)}" if unsure else "")
        return f"Promoted: {told}{tail}."
    better = primary.ci_low is not None and primary.ci_low > 0
    doubts = [*([] if better else ["that is not surely better"]), *broken, *gone, *unsure]
    return f"Not promoted: {told}, but {'; '.join(doubts)}."


def _percent(confidence: float) -> str:
    """A level of confidence in words: what lacks to the whole in two digits, for 99.97% are not 100%."""
    return f"{100 - float(f'{100 * (1 - confidence):.2g}'):.10g}%"


def _broken(found: Interval, within: Within) -> str:
    """How a ratio is surely out of its limits, in words; "" where it is not."""
    low, high = within
    if found.low is None or found.high is None:
        return ""
    told = f"{found.value:.2f} times what it was"
    if found.high < low:
        return f"{told}, surely below {low:g}"
    return f"{told}, surely above {high:g}" if high is not None and found.low > high else ""


def _keyed(rows: Sequence[Evaluation], metric: str) -> dict[tuple[str, int], Evaluation]:
    keyed: dict[tuple[str, int], Evaluation] = {}
    for row in rows:
        if row.metric != metric:
            continue
        key = (row.prompt_id, row.seed)
        if key in keyed:
            raise ValueError(f"{metric} has two rows for prompt {row.prompt_id}, seed {row.seed}")
        keyed[key] = row
    return keyed
