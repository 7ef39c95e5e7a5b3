"""The cells of a study: which feedback teaches which objective, on which seed, with what varied."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from data.errors import ConfigError
from studies.recipe import Study, Tree

MAIN: Final = "main"
TUNING: Final = "tuning"
BEST_OF: Final = "best-of-n"
IN_A_ROW: Final = "in-a-row"
SWEEPS: Final = ("noise", "pairs", "reference", "category-heldout", "draws")
PARTS: Final = (MAIN, IN_A_ROW, *SWEEPS)
"""What `--only` may name; `main` is the grid with tuning and best-of-n."""
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


def tuning_cells(study: Study) -> list[Cell]:
    """A cell for each setting of each objective; none where there is nothing to choose."""
    how = study.tuning
    if how is None:
        return []
    return [
        Cell(TUNING, how.feedback, objective, how.seed, value=f"setting {trial}", trial=trial)
        for objective, tried in study.objectives.items()
        for trial in range(len(tried))
    ]


def cells(study: Study, chosen: Sequence[str] = PARTS) -> list[Cell]:
    """Every cell of the chosen parts but tuning, seed by seed; best-of-n is no cell."""
    found = []
    for seed in study.seeds:
        for part in chosen:
            found += list(_OF[part](study, seed))
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


def _noise(study: Study, seed: int) -> Iterator[Cell]:
    part = study.sweeps.noise
    if part is not None:
        for feedback in part.feedbacks:
            for objective in part.objectives:
                for share in part.shares:
                    changes: Tree = {"shaping": {"label_noise": share}}
                    value = f"noise {share:g}"
                    yield Cell("noise", feedback, objective, seed, value, noise=share, changes=changes)


def _pairs(study: Study, seed: int) -> Iterator[Cell]:
    part = study.sweeps.pairs
    if part is not None:
        for feedback in part.feedbacks:
            for objective in part.objectives:
                for count in part.per_prompt:
                    changes: Tree = {"curate": {"pairs_per_prompt": count}}
                    yield Cell("pairs", feedback, objective, seed, f"{count} a prompt", changes=changes)


def _reference(study: Study, seed: int) -> Iterator[Cell]:
    part = study.sweeps.reference
    if part is not None:
        for feedback in part.feedbacks:
            for objective in part.objectives:
                for name in ("start", "base"):
                    changes: Tree = {"finetune": {"reference": name}}
                    yield Cell(
                        "reference", feedback, objective, seed, name, rounds=part.rounds, changes=changes
                    )


def _held_out(study: Study, seed: int) -> Iterator[Cell]:
    part = study.sweeps.category_heldout
    if part is not None:
        for feedback in part.feedbacks:
            for objective in part.objectives:
                for name in part.categories:
                    changes: Tree = {"curate": {"leave_out": [name]}}
                    yield Cell("category-heldout", feedback, objective, seed, name, changes=changes)


def _draws(study: Study, seed: int) -> Iterator[Cell]:
    part = study.sweeps.draws
    if part is not None:
        for feedback in part.feedbacks:
            for objective in part.objectives:
                for count in part.counts:
                    changes: Tree = {"finetune": {"draws": count}}
                    value = f"K = {count}" if count else "fresh"
                    yield Cell("draws", feedback, objective, seed, value, changes=changes)


_OF: Final[dict[str, Any]] = {
    MAIN: _main,
    IN_A_ROW: _in_a_row,
    "noise": _noise,
    "pairs": _pairs,
    "reference": _reference,
    "category-heldout": _held_out,
    "draws": _draws,
}
