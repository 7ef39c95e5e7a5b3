"""What a study is told: the grid as data (`recipes/study-mini.yaml`)."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from data.errors import ConfigError
from data.settings import Settings
from flows.config.load import check, read_tree
from flows.config.recipe import Recipe
from models.training.objectives import get_objective
from models.training.settings import ObjectiveLabel, settings_of
from studies.ranges import SearchPart

FeedbackName = Literal["judge-binary", "judge-p", "clip", "flow", "oracle"]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Tree = dict[str, Any]

# What a cell may change of the study's recipe. Clips, and how policies are compared, are the same for all.
_CHANGEABLE: Final = ("feedback", "shaping", "curate", "finetune")
# The budget of training: equal for every cell.
_BUDGET: Final = ("steps", "batch_size")


class TuningPart(Settings):
    """How each objective's own settings are chosen: the same number of trials for each, on other prompts."""

    seed: Seed = Field(title="Seed", description="Not one of the study's.")
    later_seeds: list[Seed] = Field(
        default=[],
        title="Later seeds",
        description="On each of these, one after the other, the best of those before are compared too.",
    )
    keep: float = Field(
        default=1 / 3, gt=0.0, le=1.0, title="Keep", description="Share of the settings that goes on."
    )
    feedback: FeedbackName = Field(title="Feedback", description="Under which the settings are compared.")
    prompts: str = Field(default="dev", title="Prompts", description="Split that decides.")
    clips: int = Field(default=240, ge=1, title="Clips", description="Of each policy on that split.")


class BestOfPart(Settings):
    """Best-of-n sampling without training: of n clips of the base, the one that the feedback prefers."""

    clips_per_prompt: int = Field(ge=2, title="Clips per prompt", description="Of the evaluation's prompts.")
    sizes: list[Annotated[int, Field(ge=2)]] = Field(min_length=1, title="Sizes", description="Each n.")

    @model_validator(mode="after")
    def _divides(self) -> Self:
        for size in self.sizes:
            if self.clips_per_prompt % size:
                raise ValueError(f"{self.clips_per_prompt} clips a prompt make no whole groups of {size}")
        return self


class RowPart(Settings):
    """Rounds in a row, from candidate to candidate; one that the gate refuses is not gone on from."""

    feedback: FeedbackName
    objective: ObjectiveLabel
    rounds: int = Field(ge=2, le=100, title="Rounds", description="In a row.")
    later: Tree = Field(
        default={}, title="Later", description="Changed of curate and finetune from the second round on."
    )
    others: dict[Annotated[str, Field(min_length=1)], Tree] = Field(
        default={},
        title="Others",
        description="By name: the same row with something else in place of `later`.",
    )


class SweepPart(Settings):
    """Cells with something else varied, under these feedbacks with these objectives."""

    feedbacks: list[FeedbackName] = Field(min_length=1)
    objectives: list[ObjectiveLabel] = Field(min_length=1)


class NoisePart(SweepPart):
    """Wrong labels: a share of the clips is taught the other way round."""

    shares: list[Annotated[float, Field(ge=0.0, le=0.5)]] = Field(min_length=1)


class PairsPart(SweepPart):
    """More or fewer pairs a prompt, for objectives that learn from pairs."""

    per_prompt: list[Annotated[int, Field(ge=1)]] = Field(min_length=1)


class ReferencePart(SweepPart):
    """Over several rounds, the reference is the base or the policy that the round starts from."""

    rounds: int = Field(default=2, ge=2, le=100)


class HeldOutPart(SweepPart):
    """One category's clips do not teach; its held-out prompts show what the others taught about it."""

    categories: list[str] = Field(min_length=1)


class DrawsPart(SweepPart):
    """K fixed (noise level, noise) draws a prompt; 0: fresh ones at every step."""

    counts: list[Annotated[int, Field(ge=0)]] = Field(min_length=1)


Sweep = NoisePart | PairsPart | ReferencePart | HeldOutPart | DrawsPart


class SweepsPart(Settings):
    """Further variants of the grid."""

    noise: NoisePart | None = None
    pairs: PairsPart | None = None
    reference: ReferencePart | None = None
    category_heldout: HeldOutPart | None = None
    draws: DrawsPart | None = None


class Study(Settings):
    """One study."""

    name: str = Field(title="Name", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    recipe: str = Field(title="Recipe", min_length=1, description="Of a round, which every cell is.")
    cell: Tree = Field(default={}, title="Cell", description="Changes to that recipe, for every cell.")
    seeds: list[Seed] = Field(min_length=1, title="Seeds", description="Each plays the whole grid.")
    workers: int = Field(
        default=1, ge=0, le=256, title="Workers", description="Processes; 0: all in the one that was started."
    )
    threads: int = Field(default=1, ge=1, le=256, title="Threads", description="Of each process.")
    feedbacks: dict[FeedbackName, Tree] = Field(
        min_length=1, title="Feedbacks", description="By name: what the recipe says of it."
    )
    accept_like: FeedbackName | None = Field(
        default=None,
        title="Accept like",
        description="Graded feedbacks accept as large a share of each prompt's clips as passes this one.",
    )
    objectives: dict[ObjectiveLabel, list[Tree]] = Field(
        min_length=1, title="Objectives", description="By name: the settings to be tried, equally many each."
    )
    search: SearchPart | None = Field(
        default=None, title="Search", description="In place of objectives: ranges that theirs are drawn from."
    )
    tuning: TuningPart | None = Field(default=None, title="Tuning")
    best_of: BestOfPart | None = Field(default=None, title="Best of n")
    in_a_row: RowPart | None = Field(default=None, title="Rounds in a row")
    sweeps: SweepsPart = Field(default_factory=SweepsPart, title="Sweeps")

    @model_validator(mode="before")
    @classmethod
    def _drawn(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or given.get("search") is None:
            return given
        if "objectives" in given:
            raise ValueError("search draws the settings of the objectives: leave out either of the two")
        return {**given, "objectives": SearchPart.model_validate(given["search"]).drawn()}

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        lists = [
            (f"{where}.{name}", value)
            for where, part in _sweeps(self)
            for name, value in part
            if isinstance(value, list)
        ]
        if self.tuning is not None:
            lists.append(("tuning", [self.tuning.seed, *self.tuning.later_seeds]))
        for name, items in [("seeds", self.seeds), *lists]:
            if len(set(items)) != len(items):
                raise ValueError(f"{name} names one twice")
        trials = {name: len(tried) for name, tried in self.objectives.items()}
        if len(set(trials.values())) > 1 or not all(trials.values()):
            told = ", ".join(f"{name} {count}" for name, count in trials.items())
            raise ValueError(f"objectives are not tuned under an equal search budget: settings of {told}")
        like = {} if self.accept_like is None else self.feedbacks.get(self.accept_like, {})
        shaping = like.get("shaping")  # whatever the file says; the recipe that it changes checks it
        if isinstance(shaping, Mapping) and shaping.get("kind", "binary") != "binary":
            raise ValueError(f"accept_like names {self.accept_like!r}, which is graded: nothing passes it")
        if self.tuning is None and max(trials.values()) > 1:
            raise ValueError("objectives have several settings each, but there is no `tuning` to choose by")
        for seed in [] if self.tuning is None else [self.tuning.seed, *self.tuning.later_seeds]:
            if seed in self.seeds:
                raise ValueError(f"tuning.seed {seed} is one of the study's seeds: take another")
        row = [] if self.in_a_row is None else [("in_a_row", self.in_a_row)]
        feedbacks = [(where, name) for where, part in _sweeps(self) for name in part.feedbacks]
        feedbacks += [(f"{where}.feedback", part.feedback) for where, part in row]
        feedbacks += [] if self.tuning is None else [("tuning.feedback", self.tuning.feedback)]
        feedbacks += [] if self.accept_like is None else [("accept_like", self.accept_like)]
        objectives = [(where, name) for where, part in _sweeps(self) for name in part.objectives]
        objectives += [(f"{where}.objective", part.objective) for where, part in row]
        for kind, named, known in (
            ("feedback", feedbacks, self.feedbacks), ("objective", objectives, self.objectives),
        ):  # fmt: skip
            for where, name in named:
                if name not in known:
                    raise ValueError(f"{where} names {kind} {name!r}, which `{kind}s` does not have")
        for objective in self.sweeps.pairs.objectives if self.sweeps.pairs else []:
            if not get_objective(settings_of(objective)["objective"]).pairwise:
                raise ValueError(f"sweeps.pairs names {objective!r}, which does not learn from pairs")
        return self


def load_study(path: str, overrides: Sequence[str] = ()) -> Study:
    """The study in `path`, with each `a.b=c` of `overrides` put in its place; every cell's recipe is checked.

    Raises:
        ConfigError: the file cannot be read, or says something that a study, or a recipe, does not know.
    """
    study = check(Study, read_tree(path, overrides, Study), f"study {path}", overrides)
    what = f"study {path}"
    for name, tree in study.feedbacks.items():
        _only(tree, _CHANGEABLE, f"{what}: feedbacks.{name}")
        cell_recipe(study, tree, where=f"{what}: feedbacks.{name}")
    for objective, tried in study.objectives.items():
        for index, tree in enumerate(tried):
            where = f"{what}: objectives.{objective}[{index}]"
            _only(tree, ("curate", "finetune"), where)
            said = tree.get("finetune")
            budget = said if isinstance(said, dict) else {}  # what is no part of a recipe is refused below
            for budgeted in _BUDGET:
                if budgeted in budget:
                    raise ConfigError(
                        f"{where}: finetune.{budgeted} is the same for every cell; set it in cell.finetune"
                    )
            first = next(iter(study.feedbacks.values()))
            cell_recipe(study, first, {"finetune": settings_of(objective)}, tree, where=where)
    if study.in_a_row is not None:
        taught = study.feedbacks[study.in_a_row.feedback]
        changed = {f"others.{other}": tree for other, tree in study.in_a_row.others.items()}
        for place, tree in {"later": study.in_a_row.later, **changed}.items():
            where = f"{what}: in_a_row.{place}"
            _only(tree, ("curate", "finetune"), where)
            cell_recipe(study, taught, tree, where=where)
    return study


def cell_recipe(study: Study, *changes: Tree, where: str = "study", **fields: Any) -> Recipe:
    """The study's recipe with `changes` and `fields`, checked as any recipe.

    Raises:
        ConfigError: names what is wrong, and `where`.
    """
    tree = merged(_tree(study.recipe), study.cell, *changes, fields)
    # The metric is the oracle; where the oracle teaches, that is what the study wants to know: the ceiling.
    if tree.get("feedback") == "oracle":
        tree = merged(tree, {"evaluate": {"same_as_feedback": True}})
    return check(Recipe, tree, f"{where}: as a recipe")


@functools.cache
def _tree(path: str) -> Tree:
    """What the recipe's file says; hundreds of cells ask, and none changes it."""
    return read_tree(path)


def merged(*trees: Tree) -> Tree:
    """The trees over one another, the last one on top; lists are replaced, not joined."""
    whole: Tree = {}
    for tree in trees:
        for key, value in tree.items():
            below = whole.get(key)
            both = isinstance(value, dict) and isinstance(below, dict)
            whole[key] = merged(below, value) if both else value  # type: ignore[arg-type]  # both are mappings
    return whole


def _only(tree: Tree, allowed: Sequence[str], where: str) -> None:
    for key in tree:
        if key not in allowed:
            raise ConfigError(
                f"{where}: {key} is the same for every cell, so that all have equal clips and equal "
                f"examinations; here only {', '.join(allowed)} may be set. Set it in `cell`"
            )


def _sweeps(study: Study) -> list[tuple[str, SweepPart]]:
    return [(f"sweeps.{name}", part) for name, part in study.sweeps if part is not None]
