"""The rows of a study read back, with the clips' values behind them, and intervals over seeds and prompts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from data.errors import DataError
from data.records import Clip, Studied
from data.store import Store
from data.store.manifest import Manifest
from models.gate import bootstrap
from models.gate.verdict import Paired, pair_up
from studies.best_of import Preference, choose, values_of
from studies.cells import STAGE
from studies.grid import BEST_OF, CONTROL, cells, tuning_cells
from studies.recipe import Study
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


class Facts:
    """All rows of one study in a store."""

    def __init__(self, store: Store, study: str) -> None:
        """Read them.

        Raises:
            DataError: the store holds none.
        """
        self._store = store
        self._units: dict[tuple[str, int, int], Manifest] = {}
        self._paired: dict[tuple[str, int, int], Paired] = {}
        rows: list[Studied] = []
        for manifest in store.manifests(STAGE):
            for row in store.read(manifest.key, "studies"):
                if row.study == study:
                    rows.append(row)
                    self._units[_name(row)] = manifest
        if not rows:
            raise DataError(
                f"{store.root} holds no row of study {study}: run `vidloop study` with this store"
            )
        self.rows = sorted(
            rows, key=lambda row: (row.variant, row.objective, row.feedback, row.value, row.seed)
        )

    def where(self, **wanted: Any) -> list[Studied]:
        """Rows whose fields have the wanted values."""
        return [
            row for row in self.rows if all(getattr(row, name) == value for name, value in wanted.items())
        ]

    def main(self, feedback: str, objective: str) -> list[Studied]:
        """The main grid's rows of one cell, a row a seed; the control has one for all feedbacks."""
        chosen = self.where(variant="main", objective=objective, best_of=1)
        return [row for row in chosen if objective == CONTROL or row.feedback == feedback]

    @cached_property
    def feedbacks(self) -> list[str]:
        """Of the main grid, in the order that tables have."""
        return _in_order({row.feedback for row in self.where(variant="main")}, FEEDBACKS)

    @cached_property
    def objectives(self) -> list[str]:
        """Trained ones of the main grid, in the order that tables have."""
        return _in_order({row.objective for row in self.where(variant="main", best_of=1)}, OBJECTIVES)

    def paired(self, row: Studied) -> Paired:
        """The metric's values behind a row, before and after, clip by clip; a choice by choice of best-of-n.

        Raises:
            StoreError: an evaluation is not in the store.
        """
        name = _name(row)
        if name not in self._paired:
            self._paired[name] = self._chosen(row) if row.objective == BEST_OF else self._evaluated(row)
        return self._paired[name]

    def effect(self, rows: Sequence[Studied], category: str | None = None) -> Effect | None:
        """Before against after over the rows' seeds; None if nothing was measured."""
        found = _effect([(row.seed, self.paired(row)) for row in rows if row.after is not None], category)
        absent = sum(row.after is None for row in rows)
        return None if found is None else replace(found, absent=absent)

    def between(
        self, first: Sequence[Studied], second: Sequence[Studied], category: str | None = None
    ) -> Effect | None:
        """What `first` gains over `second`: their policies on the same prompts and noise, seed by seed."""
        by_seed = {row.seed: row for row in second if row.after is not None}
        both = [
            (row.seed, _against(self.paired(row), self.paired(by_seed[row.seed])))
            for row in first
            if row.after is not None and row.seed in by_seed
        ]
        return _effect(both, category)

    def missing(self, study: Study) -> list[tuple[str, str]]:
        """Cells of the grid that have not left all rows, and why the last attempt failed, if one did."""
        there = {
            (row.variant, row.value, row.feedback, row.objective, row.seed, row.rounds) for row in self.rows
        }
        reasons = self._failures()
        lacking = [
            cell
            for cell in [*tuning_cells(study), *cells(study)]
            if (cell.variant, cell.value, cell.feedback, cell.objective, cell.seed, cell.rounds) not in there
        ]
        found = []
        for cell in lacking:
            why = next((reason for label, reason in reasons if label.startswith(cell.label)), "not played")
            found.append((cell.label, why))
        return found

    def _failures(self) -> list[tuple[str, str]]:
        """Label and reason of every work that failed, the latest first."""
        found = []
        for path in sorted(self._store.root.glob("runs/*.jsonl"), reverse=True):
            for line in reversed(path.read_text(encoding="utf-8").splitlines()):
                try:
                    fact = json.loads(line)
                except ValueError:  # a crash tore it
                    continue
                if fact.get("stage") == STAGE and fact.get("error"):
                    found.append((fact["label"], fact["error"]))
        return found

    def categories(self) -> list[str]:
        """Of the examined prompts."""
        return sorted({name for row in self.where(variant="main") for name in json.loads(row.categories)})

    def _evaluated(self, row: Studied) -> Paired:
        values = [one for one in self._store.read(row.evaluate_key, "evaluations") if one.split == row.split]
        before = [one for one in values if one.policy_id == row.policy_before]
        after = [one for one in values if one.policy_id == row.policy_after]
        return pair_up(before, after, row.metric)

    def _chosen(self, row: Studied) -> Paired:
        """Best-of-n has no evaluation of its own: its choices are made again, from the same scores."""
        how = json.loads(row.settings)
        parents = [self._store.manifest(key) for key in self._units[_name(row)].parents]
        clips: list[Clip] = []
        by_reward: dict[str, list[str]] = {}
        for one in parents:
            if one is not None and one.stage == "generate":
                clips += self._store.read(one.key, "clips")
            elif one is not None:
                by_reward.setdefault(one.question["reward"], []).append(one.key)
        preference = Preference(
            row.feedback, RewardRef(how["reward"], "", None), how["kind"], how["threshold"]
        )
        judged, truth = (values_of(self._store, by_reward[name]) for name in (how["reward"], row.metric))
        choices = choose(clips, judged, truth, preference, row.best_of)
        return Paired(
            row.metric,
            np.array([one.before for one in choices], dtype=np.float64),
            np.array([one.after for one in choices], dtype=np.float64),
            tuple(one.prompt_id for one in choices),
            tuple(one.category for one in choices),
        )


FEEDBACKS: Final = ("judge-binary", "judge-p", "clip", "flow", "oracle")
OBJECTIVES: Final = ("unfiltered", "sft", "rwr", "rwr-exp", "dpo", "dpo-anchor", "kto", "nft")


def _in_order(found: set[str], order: Sequence[str]) -> list[str]:
    return [*(name for name in order if name in found), *sorted(found - set(order))]


def _name(row: Studied) -> tuple[str, int, int]:
    return row.cell, row.rounds, row.best_of


def _against(first: Paired, second: Paired) -> Paired:
    """`second`'s after in place of `first`'s before. Both are sorted by the same prompts and seeds."""
    if first.prompts != second.prompts:
        raise DataError("two cells of one seed were examined on different clips: they cannot be compared")
    return Paired(first.metric, second.after, first.after, first.prompts, first.categories)


def _effect(held: Sequence[tuple[int, Paired]], category: str | None) -> Effect | None:
    measured = [
        (seed, (one if category is None else one.category(category)).measured()) for seed, one in held
    ]
    whole = [(seed, one) for seed, one in measured if one.prompts]
    if not whole:
        return None
    before, after = (np.concatenate([getattr(one, side) for _, one in whole]) for side in ("before", "after"))
    seeds: npt.NDArray[np.int64] = np.concatenate(
        [np.full(len(one.prompts), seed, dtype=np.int64) for seed, one in whole]
    )
    names = [name for _, one in whole for name in one.prompts]
    prompts = np.unique(names, return_inverse=True)[1].astype(np.int64)
    found = bootstrap.crossed(after - before, seeds, prompts, DRAWS, CONFIDENCE, SEED)
    return Effect(float(before.mean()), float(after.mean()), found.low, found.high, len(names), len(whole))
