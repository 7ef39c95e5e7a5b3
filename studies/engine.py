"""The study played: plans and crew together; progress, a time limit, failures that are not dropped."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from data.errors import StageFailed
from data.store import Store
from flows.reporting.words import duration
from studies.best_of import BestOfWork
from studies.cells import CellWork
from studies.contexts import Chosen, Opened
from studies.grid import MAIN, cells
from studies.plans import (
    Plan,
    Work,
    best_of_work,
    choose,
    one_cell,
    pools,
    tuning,
    tuning_rows,
)
from studies.recipe import Study
from studies.standings import places, seeds, table
from studies.workers import Crew, Finished, gpus
from tasks.round_ids import new_round_id

# A work whose process dies is given to another one, once: the next death is the work's own.
_DEATHS: Final = 2

Say = Callable[[str], None]


@dataclass
class Outcome:
    """What a call of the study did.

    Attributes:
        run: names the facts in the store, `runs/<run>.jsonl`.
        done: cells (best-of-n counts as one a seed) played by this call; cached: found whole in the store.
        left: not reached, because the time was up or what they rest on failed.
        failed: label and reason of every work that failed.
    """

    run: str
    done: int = 0
    cached: int = 0
    left: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class _Running:
    plan: Plan
    number: int
    open: int = 0
    failed: bool = False
    cells: int = 0  # rows that it has yet to leave


class Engine:
    """Works through plans with a crew."""

    def __init__(self, store: Store, crew: Crew, say: Say, run: str, deadline: float | None) -> None:
        self._store, self._crew, self._say, self._deadline = store, crew, say, deadline
        self.outcome = Outcome(run)
        self._order = count()
        self._queue: list[tuple[int, int, Work, _Running]] = []
        self._at_work: dict[str, _Running] = {}
        self._deaths: dict[str, int] = {}
        self._spent: dict[bool, list[float]] = {True: [], False: []}  # seconds of cells, of other works
        self._running: list[_Running] = []

    @property
    def late(self) -> bool:
        """Whether no work is to be begun any more."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    def play(self, plans: Sequence[tuple[Plan, int]]) -> None:
        """Play plans, the first ones first, as far as time goes.

        Args:
            plans: each with the number of rows that it leaves.
        """
        self._running = [
            _Running(plan, number, cells=expected) for number, (plan, expected) in enumerate(plans)
        ]
        for running in self._running:
            self._advance(running)
        while self._queue or self._crew.busy:
            if not self.late:
                self._give()
            if not self._crew.busy:
                break
            for finished in self._crew.wait():
                self._take(finished)
        self.outcome.left += sum(running.cells for running in self._running)
        self._queue.clear()

    def _advance(self, running: _Running) -> None:
        """Ask the plan for its next works until one of them has to be done."""
        while running.open == 0:
            if running.failed or self.late:
                return
            try:
                works = next(running.plan, None)
            except StageFailed as error:
                self._fail(running, "what comes next", str(error))
                return
            if works is None:
                return
            for work in works:
                if _is_row(work) and self._store.verify(work.key) is None:
                    self.outcome.cached += 1
                    running.cells -= 1
                    continue
                running.open += 1
                heapq.heappush(self._queue, (running.number, next(self._order), work, running))

    def _give(self) -> None:
        """Give out what may be done now: not two works that share answers at the same time."""
        put_back = []
        while self._queue and self._crew.busy < self._crew.size:
            item = heapq.heappop(self._queue)
            work, running = item[2], item[3]
            if work.alike in self._at_work:
                put_back.append(item)
                continue
            self._at_work[work.alike] = running
            self._crew.give(work)
        for item in put_back:
            heapq.heappush(self._queue, item)

    def _take(self, finished: Finished) -> None:
        work = finished.work
        running = self._at_work.pop(work.alike)
        if finished.died:
            self._deaths[work.key] = self._deaths.get(work.key, 0) + 1
            if self._deaths[work.key] < _DEATHS:
                self._say(f"    {work.label}: {finished.error}; another one takes it up")
                heapq.heappush(self._queue, (running.number, next(self._order), work, running))
                return
        facts = {"event": "cell" if _is_row(work) else "unit", "label": work.label, "key": work.key}
        self._store.log_run(
            self.outcome.run,
            {**facts, "stage": "study", "seconds": round(finished.seconds, 3), "error": finished.error},
        )
        running.open -= 1
        if finished.error:
            self._fail(running, work.label, finished.error)
        else:
            self._spent[_is_row(work)].append(finished.seconds)
            if _is_row(work):
                self.outcome.done += 1
                running.cells -= 1
            self._say(f"    {work.label}: {duration(finished.seconds)}{self._told(work)}{self._rest()}")
        self._advance(running)

    def _fail(self, running: _Running, label: str, reason: str) -> None:
        running.failed = True
        self.outcome.failed.append((label, reason))
        self._say(f"    {label}: FAILED: {reason}")

    def _told(self, work: Work) -> str:
        """What a cell found, in a few words."""
        if not isinstance(work, CellWork):
            return ""
        row = self._store.read(work.key, "studies")[0]
        if row.after is None or row.before is None:
            return f", {row.outcome}"
        return f", {row.before:.3f} -> {row.after:.3f}"

    def _rest(self) -> str:
        """How many cells are left, and for how long, by what they took so far."""
        left = sum(running.cells for running in self._running)
        others = sum(not _is_row(item[2]) for item in self._queue)
        seconds = 0.0
        for kind, number in ((True, left), (False, others)):
            spent = self._spent[kind]
            seconds += number * (sum(spent) / len(spent)) if spent else 0.0
        told = f"; {left} cells" + (f", {others} other works" if others else "") + " left"
        return f"{told}, about {duration(seconds / self._crew.size)}" if self._spent[True] or others else told


def play(
    study: Study,
    store: Store,
    chosen_parts: Sequence[str],
    say: Say,
    max_minutes: float | None = None,
) -> Outcome:
    """Play the chosen parts of a study, or what is left of them.

    Args:
        study: the grid.
        store: keeps everything; a study that was interrupted goes on in it.
        chosen_parts: of `grid.PARTS`.
        say: told a line a finished work.
        max_minutes: no work is begun later than this; those that are at work are finished.

    Raises:
        ConfigError: what was given is wrong, or another study works in this store.
    """
    begun = time.monotonic()
    deadline = None if max_minutes is None else begun + 60 * max_minutes
    run = new_round_id(store)
    with store.lock("study", wait=False):
        opened = Opened(study, store, run)
        wanted = cells(study, chosen_parts)
        tried = len(study.objectives) * sum(places(study, rung) for rung in range(len(seeds(study))))
        first = opened.base(study.seeds[0])
        devices = gpus(first.generation.model.device)
        say(f"Study {study.name}: {len(wanted)} cells, {tried} to tune; run {run}")
        on = f" on {len(devices)} GPUs" if devices else ""
        who = f"{study.workers} workers of {study.threads} threads" if study.workers else "no workers: alone"
        say(f"    {who}{on}, store {store.url}")
        with Crew(study.workers, study.threads, devices) as crew:
            engine = Engine(store, crew, say, run, deadline)
            with_best = MAIN in chosen_parts and study.best_of is not None
            begin: list[tuple[Plan, int]] = [(tuning(opened), tried)] if tried else []
            if wanted or with_best:
                begin += [(pools(opened, seed, False, with_best), 0) for seed in study.seeds]
            say("Pools and tuning")
            engine.play(begin)
            outcome = engine.outcome
            found = tuning_rows(opened)
            for line in table(study, found):
                say(line)
            if engine.late or outcome.failed:
                outcome.left += sum(cell.rounds for cell in wanted) + (len(study.seeds) if with_best else 0)
                return outcome
            chosen = choose(study, found)
            for line in told(study, chosen):
                say(line)
            say("Cells")
            # Rounds in a row are the longest way to go: they begin first.
            order = sorted(wanted, key=lambda cell: -cell.rounds)
            plans = [(one_cell(opened, cell, chosen), cell.rounds) for cell in order]
            best = [best_of_work(opened, seed) for seed in study.seeds] if with_best else []
            plans += [(_only(work), 1) for work in best if work is not None]
            engine.play(plans)
            return outcome


def told(study: Study, chosen: Chosen) -> list[str]:
    """Which settings each objective has from tuning, a line each."""
    if study.tuning is None:
        return []
    lines = []
    for objective, tried in study.objectives.items():
        trial = chosen.of(str(objective))
        lines.append(f"    {objective}: setting {trial} of {len(tried)}: {tried[trial]}")
    return lines


def _only(work: Work) -> Plan:
    yield [work]


def _is_row(work: Work) -> bool:
    """Whether the work leaves rows of the study; its key is then that of a manifest."""
    return isinstance(work, CellWork | BestOfWork)
