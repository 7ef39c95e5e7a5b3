"""How the settings of each objective stand in tuning: successive halving, the gate's guards as constraints.

All settings are compared on the first seed; the best share of them on the next one too, and so on. Each
objective is halved for itself, so that all have the same budget. A setting with which a guard broke is out:
it goes on, or is chosen, only where too few others are left.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from data.records import Studied
from studies.grid import TUNING, Cell, tuning_cells
from studies.recipe import Study, Tree


@dataclass(frozen=True)
class Standing:
    """One of an objective's settings.

    Attributes:
        trial: its number; settings: what it says.
        gains: success after less before, a number a seed that it was played on; -inf where none was measured.
        broken: guards that broke, with the seed: "diversity (seed 9)".
        lacking: why nothing was measured, where nothing was.
    """

    trial: int
    settings: Tree
    gains: tuple[float, ...]
    broken: tuple[str, ...]
    lacking: tuple[str, ...]

    @property
    def gain(self) -> float:
        """Mean over the seeds."""
        return sum(self.gains) / len(self.gains) if self.gains else -math.inf

    @property
    def order(self) -> tuple[bool, int, float, int]:
        """Sorts the best first: no guard broken, compared on more seeds, the larger gain, named first."""
        return (bool(self.broken or self.lacking), -len(self.gains), -self.gain, self.trial)


def seeds(study: Study) -> list[int]:
    """Of tuning, in the order of the rungs; none where there is nothing to choose."""
    return [] if study.tuning is None else [study.tuning.seed, *study.tuning.later_seeds]


def places(study: Study, rung: int) -> int:
    """How many settings of an objective are played on a rung, from 0."""
    tried = len(next(iter(study.objectives.values())))
    keep = 1.0 if study.tuning is None else study.tuning.keep**rung
    return max(1, math.ceil(tried * keep))


def standings(study: Study, objective: str, rows: Sequence[Studied]) -> list[Standing]:
    """An objective's settings, the best first; one without a row is not among them.

    Args:
        rows: of tuning, of any objective.
    """
    order = seeds(study)
    found = []
    for trial, settings in enumerate(study.objectives[objective]):
        mine = [row for row in rows if (row.objective, row.value) == (objective, name(trial))]
        own = [row for seed in order for row in mine if (row.variant, row.seed) == (TUNING, seed)]
        if own:
            broken = tuple(f"{guard} (seed {row.seed})" for row in own for guard in _broken(row))
            lacking = tuple(row.outcome for row in own if row.after is None)
            found.append(Standing(trial, settings, tuple(map(_gain, own)), broken, lacking))
    return sorted(found, key=lambda one: one.order)


def name(trial: int) -> str:
    """What the rows of tuning call a setting."""
    return f"setting {trial}"


def rungs(study: Study, rows: Sequence[Studied]) -> list[list[Cell]]:
    """The cells of each rung, as far as rows say which they are."""
    found: list[list[Cell]] = []
    for number, seed in enumerate(seeds(study)):
        if number and not all(_row(rows, cell) for cell in found[-1]):
            break
        chosen = {}
        for objective, tried in study.objectives.items():
            last = {cell.trial for cell in found[-1] if cell.objective == objective} if number else set()
            order = [one.trial for one in standings(study, objective, rows) if one.trial in last]
            chosen[str(objective)] = order[: places(study, number)] if number else [*range(len(tried))]
        found.append(tuning_cells(study, seed, chosen))
    return found


def table(study: Study, rows: Sequence[Studied]) -> list[str]:
    """Every setting that has a row, the best of each objective first, a line each."""
    lines = []
    for objective in study.objectives:
        for place, one in enumerate(standings(study, objective, rows)):
            on_edge = study.search.edges(objective, one.settings) if study.search else []
            gains = ", ".join("none" if gain == -math.inf else f"{100 * gain:+.1f}" for gain in one.gains)
            mean = "none" if one.gain == -math.inf else f"{100 * one.gain:+.1f}"
            said = json.dumps({k: v for part in one.settings.values() for k, v in part.items()})
            notes = [f"refused: {', '.join(one.broken)}"] if one.broken else []
            notes += list(one.lacking)
            notes += [f"on the edge: {', '.join(on_edge)}"] if on_edge and place == 0 else []
            lines.append(
                f"    {objective:14} {one.trial:3} {said:86} {mean:>6} ({gains})"
                + "".join(f"; {note}" for note in notes)
            )
    return lines


def _gain(row: Studied) -> float:
    return -math.inf if row.after is None or row.before is None else row.after - row.before


def _broken(row: Studied) -> list[str]:
    return [guard for guard, found in json.loads(row.guards).items() if found.get("ok") is False]


def _row(rows: Sequence[Studied], cell: Cell) -> bool:
    wanted = (TUNING, cell.objective, cell.value, cell.seed)
    return any((row.variant, row.objective, row.value, row.seed) == wanted for row in rows)
