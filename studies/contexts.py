"""A cell's RoundContext: that of an ordinary round of its recipe, opened once a seed and then changed.

To open a round is to digest the weights of every model it names; a study has hundreds of cells, which differ
in what they learn from and how, and in nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from data.keys import digest
from data.records import Score
from data.store import Store
from flows.config.load import check, resolve
from flows.config.recipe import Recipe
from flows.config.resolve import curation_of, finetune_settings, open_round, threshold_of
from models.training.settings import settings_of
from studies.grid import TUNING, Cell
from studies.recipe import Study, Tree, cell_recipe
from tasks import generate, score
from tasks.context import PolicyRef, RewardRef, RoundContext


@dataclass(frozen=True)
class Chosen:
    """Which of its settings each objective has, by number; what was not tuned has its first."""

    trials: Mapping[str, int]

    def of(self, objective: str) -> int:
        """Number of the objective's settings."""
        return self.trials.get(objective, 0)


class Opened:
    """A study over a store: contexts by seed, and what cells make of them."""

    def __init__(self, study: Study, store: Store, run_id: str) -> None:
        self.study, self.store, self.run_id = study, store, run_id
        self._bases: dict[tuple[int, bool], RoundContext] = {}
        self._rates: dict[str, float] = {}

    def base(self, seed: int, tuning: bool = False) -> RoundContext:
        """The context that all cells of a seed share; its feedback and objective mean nothing."""
        if (seed, tuning) not in self._bases:
            first = next(iter(self.study.feedbacks.values()))
            any_share: Tree = {"curate": {"accept_fraction": 1.0}}
            recipe = cell_recipe(self.study, any_share, first, self._examined(tuning), seed=seed)
            self._bases[seed, tuning] = open_round(recipe, self.store, self.run_id)
        return self._bases[seed, tuning]

    def context(self, cell: Cell, chosen: Chosen) -> RoundContext:
        """What the stages need for the cell's first round.

        Raises:
            StageFailed: the feedback accepts as large a share as another one, whose scores are not there.
            ConfigError: the recipe that the cell makes is wrong.
        """
        base = self.base(cell.seed, cell.variant == TUNING)
        recipe = self._recipe(cell, chosen, base)
        return replace(
            base,
            name=recipe.name,
            recipe=resolve(recipe),
            feedback=self._reward(base, recipe),
            curate=curation_of(recipe),
            # From the base, "start" and "base" are one reference: one training, not two.
            finetune=finetune_settings(recipe).changed(reference="start"),
        )

    def next_round(self, cell: Cell, chosen: Chosen, number: int, policy: PolicyRef) -> RoundContext:
        """Round `number` (from 2) of a row, from `policy`, with clips and an examination of its own."""
        seed = int(digest(["study round", cell.seed, number])[:15], 16)
        before = self.base(cell.seed, cell.variant == TUNING)
        recipe = self._recipe(cell, chosen, before, cell.later)
        own = check(Recipe, resolve(recipe) | {"seed": seed, "policy": policy.policy_id}, cell.label)
        return open_round(own, self.store, self.run_id)

    def settings(self, cell: Cell, chosen: Chosen) -> Tree:
        """The objective's own settings in this cell."""
        tried = self.study.objectives[cell.objective]
        return tried[cell.trial if cell.trial is not None else chosen.of(cell.objective)]

    def feedback_rewards(self, context: RoundContext) -> dict[str, tuple[RewardRef, Recipe]]:
        """The reward behind each feedback, and a recipe that says how it is shaped."""
        found = {}
        for name, tree in self.study.feedbacks.items():
            recipe = cell_recipe(self.study, tree, seed=context.seed)
            found[str(name)] = (self._reward(context, recipe), recipe)
        return found

    def _recipe(self, cell: Cell, chosen: Chosen, base: RoundContext, *more: Tree) -> Recipe:
        feedback = self.study.feedbacks[cell.feedback]  # type: ignore[index]  # as above
        return cell_recipe(
            self.study,
            self._accepting(feedback, base),
            feedback,
            {"finetune": settings_of(cell.objective)},
            self.settings(cell, chosen),
            cell.changes,
            *more,
            self._examined(cell.variant == TUNING),
            seed=cell.seed,
        )

    def _accepting(self, feedback: Tree, base: RoundContext) -> Tree:
        """How many clips a graded feedback accepts: as large a share as passes the one to accept like."""
        like = self.study.accept_like
        if like is None or feedback.get("shaping", {}).get("kind", "binary") != "graded":
            return {}
        recipe = cell_recipe(self.study, self.study.feedbacks[like], seed=base.seed)
        threshold = threshold_of(recipe)
        assert threshold is not None  # the feedback is binary
        name = f"{base.seed} {base.evaluate.primary}"
        if name not in self._rates:
            self._rates[name] = passing(self.store, base, self._reward(base, recipe), threshold)
        # Where nothing passes, one clip a prompt is accepted, as in every curation by share.
        return {"curate": {"accept_fraction": max(self._rates[name], 1e-6)}}

    def _examined(self, tuning: bool) -> Tree:
        how = self.study.tuning
        if not tuning or how is None:
            return {}
        return {"evaluate": {"prompts": how.prompts, "clips": how.clips, "also": []}}

    def _reward(self, context: RoundContext, recipe: Recipe) -> RewardRef:
        return next(reward for reward in context.rewards if reward.name == recipe.teacher)


def passing(store: Store, context: RoundContext, reward: RewardRef, threshold: float) -> float:
    """Share of the training clips that reach `threshold`, of those that were judged.

    Raises:
        StageFailed, StoreError: the clips or their scores are not in the store.
    """
    shards = score.shards(store, generate.units(context), (reward,))
    rows: list[Score] = [row for shard in shards for row in store.read(shard.key_of(reward), "scores")]
    values = [row.value for row in rows if row.value is not None]
    return sum(value >= threshold for value in values) / len(values) if values else 0.0
