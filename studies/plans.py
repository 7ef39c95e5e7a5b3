"""What is done in which order. A plan yields lists of works; a list may need answers of the one before."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from data.errors import StageFailed
from data.records import Studied
from data.store import Store
from flows.config.resolve import threshold_of
from studies.best_of import BestOfWork, Preference
from studies.cells import CellWork, promoted
from studies.contexts import Chosen, Opened
from studies.grid import Cell
from studies.recipe import Study
from studies.standings import rungs, seeds, standings
from tasks import generate, score
from tasks.context import RewardRef, RoundContext
from tasks.generate import GenerateShard
from tasks.units import Unit, are_whole, run_with_retries, unit_key

NOTHING_CHOSEN: Final = Chosen({})


class Work(Protocol):
    """One thing for a worker to do. Plain data: it travels to another process."""

    @property
    def label(self) -> str:
        """What a person calls it."""

    @property
    def key(self) -> str:
        """Names its answer."""

    @property
    def alike(self) -> str:
        """Works for which this is equal share answers: they are not done at the same time."""

    def run(self) -> None:
        """Have the answer in the store."""


@dataclass(frozen=True)
class UnitWork:
    """A unit of a stage, as the pools are made of."""

    unit: Unit

    @property
    def label(self) -> str:
        """What a person calls it."""
        return f"{self.unit.task} {self.unit.label}"

    @property
    def key(self) -> str:
        """One key for all that the unit commits."""
        return unit_key(self.unit)

    @property
    def alike(self) -> str:
        """See `Work.alike`."""
        return self.key

    def run(self) -> None:
        """Compute it; what is transient is tried again."""
        run_with_retries(self.unit)


Plan = Generator[Sequence[Work], None, None]


def pools(opened: Opened, seed: int, tuning: bool, best_of: bool) -> Plan:
    """A seed's training clips and the base's examination, scored; and clips to choose the best of."""
    context = opened.base(seed, tuning)
    teachers = _teachers(opened, context, tuning)
    choosing = best_of_work(opened, seed) if best_of else None
    chosen_from = choosing.shards() if choosing else []
    before = _examined_before(context)
    yield _units(opened.store, [*generate.units(context), *before, *chosen_from])
    scored: list[Unit] = [
        *score.units(context, teachers),
        *score.shards(opened.store, before, context.evaluate.measures),
        *(score.shards(opened.store, chosen_from, choosing.rewards()) if choosing else ()),
    ]
    yield _units(opened.store, scored)


def tuning(opened: Opened) -> Plan:
    """Settings of every objective, rung by rung, on seeds that are for nothing else."""
    for number, seed in enumerate(seeds(opened.study)):
        yield from pools(opened, seed, True, False)
        rung = rungs(opened.study, tuning_rows(opened, number))[number]
        yield [cell_work(opened, cell, NOTHING_CHOSEN) for cell in rung]


def one_cell(opened: Opened, cell: Cell, chosen: Chosen) -> Plan:
    """A cell, or its rounds in a row; a round's own pools are made by all workers, as the first ones are."""
    work = cell_work(opened, cell, chosen)
    yield [work]
    for number in range(2, cell.rounds + 1):
        context = opened.next_round(cell, chosen, number, promoted(opened.store, work))
        yield _units(opened.store, generate.units(context))
        examined = _examined_before(context)
        yield _units(opened.store, [*score.units(context, [context.feedback]), *examined])
        measured = score.shards(opened.store, examined, context.evaluate.measures)
        yield _units(opened.store, measured)
        work = CellWork(opened.study.name, cell, number, context, opened.settings(cell, chosen))
        yield [work]


def cell_work(opened: Opened, cell: Cell, chosen: Chosen) -> CellWork:
    """The cell's first round. Raises StageFailed if its pool must be there to say what it is, and is not."""
    context = opened.context(cell, chosen)
    return CellWork(opened.study.name, cell, 1, context, opened.settings(cell, chosen))


def best_of_work(opened: Opened, seed: int) -> BestOfWork | None:
    """Best-of-n of a seed, if the study has it."""
    part = opened.study.best_of
    if part is None:
        return None
    context = opened.base(seed)
    preferences = []
    for name, (reward, recipe) in opened.feedback_rewards(context).items():
        preferences.append(Preference(name, reward, recipe.shaping.kind, threshold_of(recipe)))
    return BestOfWork(
        opened.study.name, context, tuple(preferences), part.clips_per_prompt, tuple(sorted(part.sizes))
    )


def choose(study: Study, rows: Sequence[Studied]) -> Chosen:
    """The setting of each objective that stands best after tuning; of equals, the one named first.

    Args:
        study: says which settings there are.
        rows: of the tuning cells; a setting without a row, or with which nothing was learned, is not chosen.
    """
    found = {str(objective): standings(study, objective, rows) for objective in study.objectives}
    return Chosen(
        {name: order[0].trial for name, order in found.items() if order and order[0].gain > -math.inf}
    )


def tuning_rows(opened: Opened, most: int | None = None) -> list[Studied]:
    """The rows of tuning that are there, rung by rung, of at most so many rungs.

    A rung whose pool must be there to say what its cells are, and is not, has none.
    """
    found: list[Studied] = []
    for number in range(len(seeds(opened.study)) if most is None else most):
        known = rungs(opened.study, found)
        if len(known) <= number:
            break
        try:
            keys = [cell_work(opened, cell, NOTHING_CHOSEN).key for cell in known[number]]
        except StageFailed:
            break
        there = [key for key in keys if opened.store.verify(key, "size") is None]
        found += [row for key in there for row in opened.store.read(key, "studies")]
    return found


def _teachers(opened: Opened, context: RoundContext, tuning: bool) -> Sequence[RewardRef]:
    """What the training clips are scored by: all that the recipe names, or what tuning needs."""
    how = opened.study.tuning
    if not tuning or how is None:
        return context.rewards
    wanted = {how.feedback, opened.study.accept_like or how.feedback}
    named = opened.feedback_rewards(context)
    return list({named[name][0].name: named[name][0] for name in sorted(wanted)}.values())


def _examined_before(context: RoundContext) -> list[GenerateShard]:
    """Clips that the round's starting policy is examined by."""
    return [
        shard
        for split, jobs in context.evaluate.jobs
        for shard in generate.shards(context.generation, context.policy, jobs, f"{split} before")
    ]


def _units(store: Store, units: Sequence[Unit]) -> list[Work]:
    """Those that are not whole in the store; named twice, they are done once."""
    different = {unit_key(unit): unit for unit in units}
    units = list(different.values())
    return [UnitWork(unit) for unit, whole in zip(units, are_whole(store, units), strict=True) if not whole]
