"""The gate: did the model get better, and did it cheat? Pure functions from measurements to a verdict.

A candidate is promoted only if the primary metric's interval lies above zero and no guard is broken. A guard
watches what a cheated metric gives away: `motion`, `sharpness` and `diversity` must not fall, `flicker` must
not rise, overall and in every category. A measurement that failed is left out, with its partner, and counted;
it never becomes a number.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from data.records import Evaluation
from models.gate import bootstrap
from models.gate.bootstrap import Floats
from models.gate.settings import GateSettings

DIVERSITY: Final = "diversity"


@dataclass(frozen=True, slots=True, eq=False)
class Paired:
    """One metric of two policies, row by row on the same prompt and seed.

    Attributes:
        metric: its name.
        before, after: float64 [n]; NaN where the measurement failed.
        prompts, categories: n names.
        unmatched: rows that only one of the two policies has.
    """

    metric: str
    before: Floats
    after: Floats
    prompts: tuple[str, ...]
    categories: tuple[str, ...]
    unmatched: int = 0

    def category(self, name: str) -> Paired:
        """The rows of one category."""
        keep = np.array([c == name for c in self.categories], dtype=bool)
        return self._take(keep, 0)

    def measured(self) -> Paired:
        """The rows measured under both policies."""
        return self._take(np.isfinite(self.before) & np.isfinite(self.after), self.unmatched)

    def clusters(self) -> npt.NDArray[np.int64]:
        """Which prompt each row belongs to, as integers."""
        return np.unique(np.array(self.prompts, dtype=str), return_inverse=True)[1].astype(np.int64)

    def _take(self, keep: npt.NDArray[np.bool_], unmatched: int) -> Paired:
        rows = np.flatnonzero(keep)
        return Paired(
            self.metric,
            self.before[rows],
            self.after[rows],
            tuple(self.prompts[i] for i in rows),
            tuple(self.categories[i] for i in rows),
            unmatched,
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """Means before and after, their difference and its interval; None where nothing was measured.

    Attributes:
        n: rows measured under both policies; prompts: how many prompts they belong to.
        excluded: rows left out because a measurement failed or has no partner.
    """

    metric: str
    before: float | None
    after: float | None
    delta: float | None
    ci_low: float | None
    ci_high: float | None
    n: int
    prompts: int
    excluded: int


@dataclass(frozen=True, slots=True)
class Guard:
    """A guard's finding.

    Attributes:
        before, after: means; None where nothing was measured.
        ratio, ci_low, ci_high: after / before with its interval, overall.
        ok: False if broken; None if it could not be measured.
        broken_in: "overall" and categories in which it is broken.
        reason: why it is broken or was not measured; None if it holds.
        excluded: rows left out because a measurement failed or has no partner.
    """

    name: str
    before: float | None
    after: float | None
    ratio: float | None
    ci_low: float | None
    ci_high: float | None
    ok: bool | None
    broken_in: tuple[str, ...]
    reason: str | None
    excluded: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate decided, on what grounds, and in words. `seed` is that of the bootstrap."""

    promoted: bool
    sentence: str
    primary: Comparison
    categories: dict[str, Comparison]
    guards: dict[str, Guard]
    seed: int


def pair_up(before: Sequence[Evaluation], after: Sequence[Evaluation], metric: str) -> Paired:
    """The rows of `metric`, matched by (prompt, seed) and sorted by them.

    Raises:
        ValueError: one policy has two rows for the same prompt and seed.
    """
    first, second = (_keyed(rows, metric) for rows in (before, after))
    both = sorted(first.keys() & second.keys())
    return Paired(
        metric,
        np.array([_number(first[key].value) for key in both], dtype=np.float64),
        np.array([_number(second[key].value) for key in both], dtype=np.float64),
        tuple(first[key].prompt_id for key in both),
        tuple(first[key].category for key in both),
        unmatched=len(first.keys() ^ second.keys()),
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


def compare(paired: Paired, settings: GateSettings, seed: int) -> Comparison:
    """Means before and after with the bootstrap interval of their difference."""
    rows = paired.measured()
    n = len(rows.prompts)
    excluded = len(paired.prompts) - n + paired.unmatched
    if n == 0:
        return Comparison(paired.metric, None, None, None, None, None, 0, 0, excluded)
    difference = bootstrap.mean(
        rows.after - rows.before, rows.clusters(), settings.draws, settings.confidence, seed
    )
    return Comparison(
        paired.metric,
        float(rows.before.mean()),
        float(rows.after.mean()),
        difference.value,
        difference.low,
        difference.high,
        n,
        len(set(rows.prompts)),
        excluded,
    )


def guard(paired: Paired, settings: GateSettings, seed: int, rising: bool = False) -> Guard:
    """Whether `paired.metric` still holds, overall and in every category; it breaks by falling, or rising."""
    name = paired.metric
    rows = paired.measured()
    excluded = len(paired.prompts) - len(rows.prompts) + paired.unmatched
    if not rows.prompts:
        lost = bool(np.isfinite(paired.before).any())
        reason = "it was measured before, and never after" if lost else "nothing was measured"
        return Guard(name, None, None, None, None, None, False if lost else None, (), reason, excluded)
    before, after = float(rows.before.mean()), float(rows.after.mean())
    if not before > 0:
        reason = f"it was {before:g} before, so there is no ratio"
        return Guard(name, before, after, None, None, None, None, (), reason, excluded)
    whole = _ratio(rows, settings, seed)
    findings = {"overall": whole}
    for category in sorted(set(rows.categories)):
        part = rows.category(category)
        if part.before.sum() > 0:
            findings[category] = _ratio(part, settings, seed)
    broken = {where: found for where, found in findings.items() if _broken(found, settings, rising)}
    why: str | None = None
    if broken:
        told = ", ".join(f"{where} {found.value:.2f} times what it was" for where, found in broken.items())
        limit = f"above {settings.max_ratio:g}" if rising else f"below {settings.min_ratio:g}"
        why = f"{told}: surely {limit}"
    return Guard(
        name, before, after, whole.value, whole.low, whole.high, not broken, tuple(broken), why, excluded
    )


def decide(
    primary: Paired,
    guards: Sequence[Paired],
    settings: GateSettings,
    seed: int,
    rising: Collection[str] = (),
) -> Verdict:
    """The verdict on a candidate.

    Args:
        primary: the metric that decides, on prompts that no round trains on.
        guards: measurements of what a cheated metric gives away.
        settings: confidence and limits.
        seed: of the bootstrap; stored in the verdict.
        rising: names of the guards that break by rising; all others break by falling.
    """
    overall = compare(primary, settings, seed)
    categories = {c: compare(primary.category(c), settings, seed) for c in sorted(set(primary.categories))}
    found = {paired.metric: guard(paired, settings, seed, paired.metric in rising) for paired in guards}
    better = overall.ci_low is not None and overall.ci_low > 0
    broken = [g for g in found.values() if g.ok is False]
    promoted = better and not broken
    return Verdict(promoted, _sentence(overall, found, promoted, settings), overall, categories, found, seed)


def _sentence(
    primary: Comparison, guards: Mapping[str, Guard], promoted: bool, settings: GateSettings
) -> str:
    if primary.delta is None:
        return f"Not promoted: {primary.metric} was measured on no clip under both policies."
    moved = "rose" if primary.delta > 0 else "fell" if primary.delta < 0 else "stayed"
    told = f"{primary.metric} {moved} from {primary.before:.3f} to {primary.after:.3f} ({primary.delta:+.3f}"
    if primary.ci_low is None:
        told += f"; {primary.n} clips of one prompt give no interval)"
    else:
        told += (
            f", {settings.confidence:.0%} interval {primary.ci_low:+.3f} to {primary.ci_high:+.3f}; "
            f"{primary.n} clips of {primary.prompts} prompts)"
        )
    if primary.excluded:
        told += f", {primary.excluded} left out because a measurement failed"
    broken = [f"{g.name} is broken ({g.reason})" for g in guards.values() if g.ok is False]
    unsure = [f"{g.name} was not measured ({g.reason})" for g in guards.values() if g.ok is None]
    if promoted:
        tail = " and no guard is broken" + (f"; {'; '.join(unsure)}" if unsure else "")
        return f"Promoted: {told}{tail}."
    doubts = (
        broken
        if primary.ci_low is not None and primary.ci_low > 0
        else ["that is not surely better", *broken]
    )
    return f"Not promoted: {told}, but {'; '.join(doubts + unsure)}."


def _ratio(rows: Paired, settings: GateSettings, seed: int) -> bootstrap.Interval:
    return bootstrap.ratio(
        rows.after, rows.before, rows.clusters(), settings.draws, settings.confidence, seed
    )


def _broken(found: bootstrap.Interval, settings: GateSettings, rising: bool) -> bool:
    if found.low is None or found.high is None:
        return False  # one prompt proves nothing
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


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
