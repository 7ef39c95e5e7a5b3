"""The gate: did the model get better, and did it cheat? Pure functions from measurements to a verdict.

A candidate is promoted only if the primary metric's interval lies above zero, no guard is broken, and none
has drifted too far over a series of rounds. A guard watches what a cheated metric gives away: `motion`,
`sharpness` and `diversity` must not fall, `flicker` must not rise, overall and in every category of enough
prompts. So many questions would by chance alone break a guard now and then; the level holds for all of them
together (Bonferroni). A measurement that failed is left out, with its partner, and counted; it never becomes
a number.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from data.records import Evaluation
from models.gate import intervals
from models.gate.drift import drifted
from models.gate.intervals import FEWEST, Floats, Interval
from models.gate.settings import GateSettings

DIVERSITY: Final = "diversity"


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


def guard(
    paired: Paired, settings: GateSettings, rising: bool = False, questions: int | None = None
) -> Guard:
    """Whether `paired.metric` still holds, overall and in every category; it breaks by falling, or rising.

    Args:
        paired: its measurements.
        settings: limits, and the level of all questions together.
        rising: it breaks by rising.
        questions: how many are asked in all, see `places`; None: of this guard alone.
    """
    rows = paired.measured()
    found = Guard(paired.metric, rows.excluded)
    if not rows.prompts:
        if np.isfinite(paired.before).any():
            return replace(found, ok=False, reason="it was measured before, and never after")
        return replace(found, reason="nothing was measured")
    found = replace(found, before=float(rows.before.mean()), after=float(rows.after.mean()))
    if not rows.before.mean() > 0:
        return replace(found, reason=f"it was {found.before:g} before, so there is no ratio")
    parts = places(paired)
    confidence = 1 - (1 - settings.confidence) / max(1, questions or len(parts))
    ratios = {
        where: intervals.ratio(part.after, part.before, part.clusters(), confidence)
        for where, part in ({"overall": rows} | parts).items()
    }
    broken = {where: one for where, one in ratios.items() if _broken(one, settings, rising)}
    limit = f"above {settings.max_ratio:g}" if rising else f"below {settings.min_ratio:g}"
    told = ", ".join(f"{where} {one.value:.2f} times what it was" for where, one in broken.items())
    whole = ratios["overall"]
    return replace(
        found,
        ratio=whole.value,
        ci_low=whole.low,
        ci_high=whole.high,
        ok=None if whole.lacking else not broken,
        broken_in=tuple(broken),
        reason=f"{told}: surely {limit}" if broken else whole.lacking or None,
        unseen=tuple(sorted(set(rows.categories) - parts.keys())) or None,
    )


def places(paired: Paired) -> dict[str, Paired]:
    """Where a guard is asked for a verdict: "overall", and the categories of enough prompts."""
    rows = paired.measured()
    parts = {"overall": rows} | {name: rows.category(name) for name in sorted(set(rows.categories))}
    return {
        where: part
        for where, part in parts.items()
        if len(set(part.prompts)) >= FEWEST and part.before.sum() > 0
    }


def decide(
    primary: Paired,
    guards: Sequence[Paired],
    settings: GateSettings,
    rising: Collection[str] = (),
    confidence: float | None = None,
) -> Verdict:
    """The verdict on a candidate.

    Args:
        primary: the metric that decides, on prompts that no round trains on.
        guards: measurements of what a cheated metric gives away.
        settings: confidence and limits.
        rising: names of the guards that break by rising; all others break by falling.
        confidence: of the deciding interval; None: that of the settings.
    """
    sure = settings.confidence if confidence is None else confidence
    overall = compare(primary, settings, sure)
    categories = {c: compare(primary.category(c), settings) for c in sorted(set(primary.categories))}
    questions = sum(len(places(paired)) for paired in guards)
    found = {paired.metric: guard(paired, settings, paired.metric in rising, questions) for paired in guards}
    better = overall.ci_low is not None and overall.ci_low > 0
    broken = [g for g in found.values() if g.ok is False]
    gone = drifted({name: one.ratio for name, one in found.items()}, settings, rising)
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
            f", {100 * confidence:.3g}% interval {primary.ci_low:+.3f} to {primary.ci_high:+.3f}; "
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


def _broken(found: Interval, settings: GateSettings, rising: bool) -> bool:
    if found.low is None or found.high is None:
        return False
    return found.low > settings.max_ratio if rising else found.high < settings.min_ratio


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
