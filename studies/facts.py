"""The rows of a study read back, with the clips' values behind them, and intervals over seeds and prompts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np

from data.errors import DataError
from data.json_text import parse_json
from data.records import Clip, Studied
from data.store import Store
from data.store.manifest import Manifest
from models.gate.verdict import Paired, pair_up
from studies import bootstrap
from studies.best_of import Preference, choose, values_of
from studies.cells import STAGE
from studies.grid import BEST_OF, CONTROL, MAIN, cells
from studies.recipe import Study
from studies.standings import rungs
from tasks.context import RewardRef

# Of the report's intervals; the cells' own are the gate's.
DRAWS: Final = 10_000
CONFIDENCE: Final = 0.95
SEED: Final = 0


@dataclass(frozen=True)
class Effect:
    """A mean over seeds and prompts before and after, and their difference with its interval.

    Attributes:
        before, after: means; of a comparison of two cells: of the second and of the first one's policies.
        low, high: of `after - before`; None where there is a single prompt.
        n: clips under each; seeds: how many seeds they come from; absent: how many more learned nothing, and
            so are in none of the figures.
    """

    before: float
    after: float
    low: float | None
    high: float | None
    n: int
    seeds: int
    absent: int = 0

    @property
    def value(self) -> float:
        """The difference."""
        return self.after - self.before

    @property
    def sign(self) -> int:
        """1: the interval lies above zero; -1: below; 0: neither, or there is none."""
        if self.low is None or self.high is None:
            return 0
        return int(self.low > 0) - int(self.high < 0)


class Facts:
    """All rows of one study in a store.

    Attributes:
        rows: sorted by variant, objective, feedback, value and seed.
        feedbacks, objectives: of the main grid, as the study names them.
    """

    def __init__(self, store: Store, study: Study) -> None:
        """Read them.

        Raises:
            DataError: the store holds none.
        """
        self._store, self._study = store, study
        self._paired: dict[Studied, Paired] = {}
        self._manifests: dict[str, Manifest] = {}
        rows: list[Studied] = []
        for manifest in store.manifests(STAGE):
            found = [row for row in store.read(manifest.key, "studies") if row.study == study.name]
            self._manifests |= {row.cell: manifest for row in found if row.objective == BEST_OF}
            rows += found
        if not rows:
            raise DataError(
                f"{store.url} holds no row of study {study.name}: run `vidloop study` with this store"
            )
        self.rows = sorted(
            rows, key=lambda row: (row.variant, row.objective, row.feedback, row.value, row.seed)
        )
        trained = self.where(variant=MAIN, best_of=1)
        self.feedbacks = _named(study.feedbacks, {row.feedback for row in self.where(variant=MAIN)})
        self.objectives = _named(study.objectives, {row.objective for row in trained})

    def where(self, **wanted: Any) -> list[Studied]:
        """Rows whose fields have the wanted values."""
        return [
            row for row in self.rows if all(getattr(row, name) == value for name, value in wanted.items())
        ]

    def main(self, feedback: str, objective: str) -> list[Studied]:
        """The main grid's rows of one cell, a row a seed; the control has one for all feedbacks."""
        chosen = self.where(variant=MAIN, objective=objective, best_of=1)
        return [row for row in chosen if objective == CONTROL or row.feedback == feedback]

    @cached_property
    def grid(self) -> list[tuple[str, str, list[Studied]]]:
        """Objective, feedback ("" of the control) and rows of the main grid's cells."""
        return [
            (objective, feedback, self.main(feedback, objective))
            for objective in self.objectives
            for feedback in (self.feedbacks if objective != CONTROL else [""])
        ]

    def effect(self, rows: Sequence[Studied], category: str | None = None) -> Effect | None:
        """Before against after over the rows' seeds; None if nothing was measured."""
        measured = [(row.seed, self._values(row)) for row in rows if row.after is not None]
        return _effect(measured, category, absent=len(rows) - len(measured))

    def between(
        self, first: Sequence[Studied], second: Sequence[Studied], category: str | None = None
    ) -> Effect | None:
        """What `first` gains over `second`: their policies on the same prompts and noise, seed by seed."""
        by_seed = {row.seed: row for row in second if row.after is not None}
        both = [row for row in first if row.after is not None and row.seed in by_seed]
        apart = [(row.seed, _against(self._values(row), self._values(by_seed[row.seed]))) for row in both]
        return _effect(apart, category)

    def missing(self) -> list[tuple[str, str]]:
        """Cells of the grid that have not left all rows, and why the last attempt failed, if one did."""
        names = ("variant", "value", "feedback", "objective", "seed", "rounds")
        there = {tuple(getattr(row, name) for name in names) for row in self.rows}
        tuned = [cell for rung in rungs(self._study, self.rows) for cell in rung]
        planned = [*tuned, *cells(self._study)]
        lacking = [cell for cell in planned if tuple(getattr(cell, name) for name in names) not in there]
        failures = self._failures() if lacking else []
        return [
            (cell.label, next((why for label, why in failures if label.startswith(cell.label)), "not played"))
            for cell in lacking
        ]

    def _failures(self) -> list[tuple[str, str]]:
        """Label and reason of every work that failed, the latest first."""
        found = []
        for _, text in reversed(list(self._store.run_logs())):
            for line in reversed(text.splitlines()):
                try:
                    fact = parse_json(line)
                except ValueError:  # a crash tore it
                    continue
                if isinstance(fact, dict) and fact.get("stage") == STAGE and fact.get("error"):
                    found.append((fact["label"], fact["error"]))
        return found

    def _values(self, row: Studied) -> Paired:
        """The metric's values behind a row, before and after, clip by clip; a choice by choice of best-of-n.

        Raises:
            StoreError: an evaluation is not in the store.
        """
        if row not in self._paired:
            self._paired[row] = self._chosen(row) if row.objective == BEST_OF else self._evaluated(row)
        return self._paired[row]

    def _evaluated(self, row: Studied) -> Paired:
        values = [one for one in self._store.read(row.evaluate_key, "evaluations") if one.split == row.split]
        before, after = (
            [one for one in values if one.policy_id == policy]
            for policy in (row.policy_before, row.policy_after)
        )
        return pair_up(before, after, row.metric)

    def _chosen(self, row: Studied) -> Paired:
        """Best-of-n has no evaluation of its own: its choices are made again, from the same scores."""
        how = json.loads(row.settings)
        clips: list[Clip] = []
        by_reward: dict[str, list[str]] = {}
        for parent in map(self._store.manifest, self._manifests[row.cell].parents):
            if parent is not None and parent.stage == "generate":
                clips += self._store.read(parent.key, "clips")
            elif parent is not None:
                by_reward.setdefault(parent.question["reward"], []).append(parent.key)
        judged, truth = (values_of(self._store, by_reward[name]) for name in (how["reward"], row.metric))
        reward = RewardRef(how["reward"], "", None)
        preference = Preference(row.feedback, reward, how["kind"], how["threshold"])
        return choose(clips, judged, truth, preference, row.best_of, row.metric)


def _named(order: Iterable[str], found: set[str]) -> list[str]:
    """Those that were found, in the order that the study has; others after them."""
    known = [str(name) for name in order]
    return [*(name for name in known if name in found), *sorted(found - set(known))]


def _against(first: Paired, second: Paired) -> Paired:
    """`second`'s after in place of `first`'s before. Both are sorted by the same prompts and seeds."""
    if first.prompts != second.prompts:
        raise DataError("two cells of one seed were examined on different clips: they cannot be compared")
    return Paired(first.metric, second.after, first.after, first.prompts, first.categories)


def _effect(held: Sequence[tuple[int, Paired]], category: str | None, absent: int = 0) -> Effect | None:
    measured = [
        (seed, (one if category is None else one.category(category)).measured()) for seed, one in held
    ]
    whole = [(seed, one) for seed, one in measured if one.prompts]
    if not whole:
        return None
    before, after = (np.concatenate([getattr(one, side) for _, one in whole]) for side in ("before", "after"))
    seeds = np.repeat(
        np.array([seed for seed, _ in whole], dtype=np.int64), [len(one.prompts) for _, one in whole]
    )
    names = [name for _, one in whole for name in one.prompts]
    prompts = np.unique(names, return_inverse=True)[1].astype(np.int64)
    found = bootstrap.crossed(after - before, seeds, prompts, DRAWS, CONFIDENCE, SEED)
    levels = float(before.mean()), float(after.mean())
    return Effect(*levels, found.low, found.high, len(names), len(whole), absent)
