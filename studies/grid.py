"""The cells of a study: which feedback teaches which objective, on which seed, with what varied."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Final, assert_never

from data.errors import ConfigError
from studies.recipe import (
    DrawsPart,
    HeldOutPart,
    NoisePart,
    PairsPart,
    ReferencePart,
    Study,
    Sweep,
    Tree,
)

MAIN: Final = "main"
TUNING: Final = "tuning"
BEST_OF: Final = "best-of-n"
IN_A_ROW: Final = "in-a-row"
SWEEPS: Final = ("noise", "pairs", "reference", "category-heldout", "draws")
PARTS: Final = (TUNING, MAIN, IN_A_ROW, *SWEEPS)
"""What `--only` may name; tuning comes before every other, and `main` is the grid with best-of-n."""
CONTROL: Final = "unfiltered"


@dataclass(frozen=True)
class Cell:
    """One training, or several in a row.

    Attributes:
        variant: "main", "tuning", or what is varied; `value`: to what, "" in the main grid.
        feedback, objective, seed: as in the study.
        rounds: played in a row.
        noise: share of labels taught the other way round.
        changes: to the recipe, beside those of feedback, objective and its chosen settings.
        later: further changes from the second round of a row on.
        trial: of `tuning`: which of the objective's settings; None takes the chosen one.
    """

    variant: str
    feedback: str
    objective: str
    seed: int
    value: str = ""
    rounds: int = 1
    noise: float = 0.0
    changes: Tree = field(default_factory=dict)
    later: Tree = field(default_factory=dict)
    trial: int | None = None

    @property
    def label(self) -> str:
        """What a person calls this cell."""
        more = f", {self.value}" if self.value else ""
        row = f", {self.rounds} rounds" if self.rounds > 1 else ""
        return f"{self.variant}: {self.feedback} x {self.objective}, seed {self.seed}{more}{row}"


def parts(only: Sequence[str]) -> tuple[str, ...]:
    """The parts of the study to be played; all if none is named. Raises ConfigError for an unknown one."""
    for name in only:
        if name not in PARTS:
            close = difflib.get_close_matches(name, PARTS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(PARTS)}"
            raise ConfigError(f"--only {name}: a study has no such part; {hint}")
    return tuple(name for name in PARTS if not only or name in only)


def tuning_cells(study: Study, seed: int, trials: Mapping[str, Sequence[int]]) -> list[Cell]:
    """A cell for each of these settings of each objective, by number, on a seed; none without tuning."""
    how = study.tuning
    if how is None:
        return []
    return [
        Cell(TUNING, how.feedback, objective, seed, value=f"setting {trial}", trial=trial)
        for objective in study.objectives
        for trial in trials[objective]
    ]


def cells(study: Study, chosen: Sequence[str] = PARTS) -> list[Cell]:
    """Every cell of the chosen parts but tuning, seed by seed; best-of-n is no cell."""
    found: list[Cell] = []
    for seed in study.seeds:
        for part in chosen:
            if part == MAIN:
                found += _main(study, seed)
            elif part == IN_A_ROW:
                found += _in_a_row(study, seed)
            elif part != TUNING:
                found += _sweep(study, seed, part)
    return found


def _main(study: Study, seed: int) -> Iterator[Cell]:
    """Every feedback with every objective; the control learns from all clips, so one feedback does for it."""
    for feedback in study.feedbacks:
        for objective in study.objectives:
            if objective != CONTROL:
                yield Cell(MAIN, feedback, objective, seed)
    if CONTROL in study.objectives:
        # What the control "learns from" is only what its prompts were scored by; any feedback gives the same.
        yield Cell(MAIN, next(iter(study.feedbacks)), CONTROL, seed)


def _in_a_row(study: Study, seed: int) -> Iterator[Cell]:
    row = study.in_a_row
    if row is not None:
        for name, later in {"": row.later, **row.others}.items():
            yield Cell(IN_A_ROW, row.feedback, row.objective, seed, name, row.rounds, later=later)


def _variants(part: Sweep) -> Iterator[tuple[str, Tree, dict[str, Any]]]:
    """What a sweep's cells are varied to: its name, the changes to the recipe, other fields of the cell."""
    match part:
        case NoisePart():
            for share in part.shares:
                yield f"noise {share:g}", {"shaping": {"label_noise": share}}, {"noise": share}
        case PairsPart():
            for count in part.per_prompt:
                yield f"{count} a prompt", {"curate": {"pairs_per_prompt": count}}, {}
        case ReferencePart():
            for name in ("start", "base"):
                yield name, {"finetune": {"reference": name}}, {"rounds": part.rounds}
        case HeldOutPart():
            for name in part.categories:
                yield name, {"curate": {"exclude_categories": [name]}}, {}
        case DrawsPart():
            for count in part.counts:
                yield f"K = {count}" if count else "fresh", {"finetune": {"fixed_noise_samples": count}}, {}
        case _:
            assert_never(part)


def _sweep(study: Study, seed: int, variant: str) -> Iterator[Cell]:
    part: Sweep | None = getattr(study.sweeps, variant.replace("-", "_"))
    if part is not None:
        for feedback, objective in product(part.feedbacks, part.objectives):
            for value, changes, more in _variants(part):
                yield Cell(variant, feedback, objective, seed, value, changes=changes, **more)
