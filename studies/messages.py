"""A study in words: what it would do, and what a call of it did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from data.errors import StageFailed
from data.store import Store
from studies.contexts import Opened
from studies.engine import Outcome
from studies.grid import MAIN, cells
from studies.plans import best_of_work, cell_work, choose, tuning_rows
from studies.recipe import Study
from studies.standings import places, seeds
from tasks.stages import plan_stage

UNKNOWN = "not known before tuning and scores are there"


def show(study: Study, store: Store, chosen_parts: Sequence[str]) -> list[str]:
    """The grid with its counts, and how much of it the store holds already. Nothing is computed."""
    opened = Opened(study, store, "plan")
    wanted = cells(study, chosen_parts)
    tried = len(study.objectives) * sum(places(study, rung) for rung in range(len(seeds(study))))
    lines = [
        f"Study {study.name}: seeds {', '.join(map(str, study.seeds))}; feedbacks "
        f"{', '.join(study.feedbacks)}; objectives {', '.join(study.objectives)}"
    ]
    for seed in study.seeds:
        context = opened.base(seed)
        examined = sum(len(jobs) for _, jobs in context.evaluate.jobs)
        state = "whole" if plan_stage("score", context).whole else "to be made"
        lines.append(
            f"    pool of seed {seed}: {len(context.jobs)} clips, scored by "
            f"{', '.join(reward.name for reward in context.rewards)}; {examined} clips to examine: {state}"
        )
    found = tuning_rows(opened)
    if tried:
        lines.append(f"    tuning: {tried} cells, {len(found)} cached")
    ready, chosen = len(found) == tried, choose(study, found)
    planned, cached = Counter(cell.variant for cell in wanted), Counter[str]()
    unknown = False
    for cell in wanted if ready else []:
        try:
            cached[cell.variant] += store.verify(cell_work(opened, cell, chosen).key) is None
        except StageFailed:
            unknown = True
    for variant, number in planned.items():
        state = f"{cached[variant]} cached" if ready and not unknown else f"cached: {UNKNOWN}"
        lines.append(f"    {variant}: {number} cells, {state}")
    if MAIN in chosen_parts and study.best_of is not None:
        works = [best_of_work(opened, seed) for seed in study.seeds]
        done = sum(work is not None and store.verify(work.key) is None for work in works)
        sizes = ", ".join(map(str, study.best_of.sizes))
        lines.append(f"    best of {sizes} without training: {len(works)} seeds, {done} cached")
    rounds = sum(cell.rounds for cell in wanted) + tried
    lines.append(f"{rounds} trainings in all, each examined")
    return lines


def conclude(outcome: Outcome, say: Callable[[str], None]) -> None:
    """Say what was done and what is left. Raises StageFailed, with every reason, if something failed."""
    say(
        f"{outcome.done} cells played, {outcome.cached} were there, {outcome.left} left"
        + ("; the same command continues" if outcome.left else "")
    )
    if outcome.failed:
        told = "\n".join(f"    {label}: {reason}" for label, reason in outcome.failed)
        raise StageFailed("study", f"this failed in the study ({len(outcome.failed)} in all):\n{told}")
