"""The verdict as SQL over a bundle's own rows, and what it gives."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data.records import Evaluation
from flows.reporting.page import template
from models.gate.intervals import FEWEST, quantile
from models.gate.settings import GateSettings, Within
from models.gate.verdict import ONE_SIDED, Paired, Shares, Verdict, decide, pair_up, places
from tasks.summary import RoundSummary


@dataclass(frozen=True)
class Question:
    """What the gate was asked.

    Attributes:
        summary: of the round.
        split: name of the set that decides.
        metric: its measurements under both policies.
        guards: those of each guard.
        within: limits of each guard, by name.
        gate: the level.
    """

    summary: RoundSummary
    split: str
    metric: Paired
    guards: tuple[Paired, ...]
    within: Mapping[str, Within]
    gate: GateSettings

    def decide(self) -> Verdict:
        """The gate's answer, computed again."""
        return decide(self.metric, self.guards, self.gate, self.within)


def question(summary: RoundSummary, rows: Sequence[Evaluation], split: str) -> Question:
    """The question that a round's rows answer.

    Args:
        summary: of the round.
        rows: of its evaluation.
        split: the set that decides.
    """

    def side(policy: str | None) -> list[Evaluation]:
        return [row for row in rows if row.split == split and row.policy_id == policy]

    before, after = side(summary.policy_before), side(summary.policy_after)
    said = summary.recipe.get("gate", {})
    # A round of an earlier release does not say its limits.
    within = {
        name: ONE_SIDED if one.low is None else (one.low, one.high) for name, one in summary.guards.items()
    }
    return Question(
        summary,
        split,
        pair_up(before, after, summary.primary.metric),
        tuple(pair_up(before, after, name) for name in summary.guards),
        within,
        GateSettings.model_validate({key: said[key] for key in GateSettings.model_fields if key in said}),
    )


def sql(asked: Question) -> str:
    """A SELECT for DuckDB that reads `tables/evaluations.parquet` and gives the verdict, row by row.

    Columns: what ("gain", "guard", "promoted"), metric, place ("overall" or a category), before, after,
    value (the gain, or a guard's ratio), low, high, prompts, holds.
    """
    return template(
        "verdict.sql.j2",
        round=asked.summary.round,
        confidence=asked.gate.confidence,
        fewest=FEWEST,
        quantiles=sorted(set(_quantiles(asked))),
        limits=[(paired.metric, *_limits(asked, paired.metric)) for paired in asked.guards],
        before=asked.summary.policy_before,
        after=asked.summary.policy_after,
        split=asked.split,
        metric=asked.summary.primary.metric,
    )


def differs(found: Verdict, summary: RoundSummary) -> str:
    """Why the gate's answer, computed again, is not the summary's; "" where it is."""
    said, again = summary.primary, found.primary
    pairs = [(said.delta, again.delta), (said.ci_low, again.ci_low), (said.ci_high, again.ci_high)]
    if all(one == other or _close(one, other) for one, other in pairs):
        return ""
    return (
        f"there the gain is {said.delta} ({said.ci_low} to {said.ci_high}), here {again.delta} "
        f"({again.ci_low} to {again.ci_high}); a round of an earlier release had another kind of interval"
    )


def _close(one: float | None, other: float | None) -> bool:
    return one is not None and other is not None and math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)


def _limits(asked: Question, guard: str) -> tuple[Any, Any]:
    """Lowest and highest ratio of a guard, as SQL."""
    low, high = asked.within[guard]
    return low, "NULL" if high is None else high


def _quantiles(asked: Question) -> Iterator[tuple[int, int, float]]:
    """(shares of the level, degrees of freedom, quantile of Student's t) of every interval of the verdict."""
    prompts = len(set(asked.metric.measured().prompts))
    # Where all clips agree, one more stands for what was not seen.
    wanted = {(1, freedom) for freedom in (prompts - 1, prompts) if prompts >= FEWEST}
    shares = Shares.of(asked.guards)
    wanted |= {
        (shares.of_place(where), len(set(one.prompts)) - 1)
        for paired in asked.guards
        for where, one in places(paired).items()
    }
    for shared, freedom in wanted:
        yield shared, freedom, quantile(freedom, 1 - (1 - asked.gate.confidence) / shared)
