"""Flow `score-with-rewards`: what the rewards say of the clips."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow

from flows.reporting.messages import DEFAULT_STORE
from flows.rounds.common import DEFAULT_RECIPE, NO_OVERRIDES, run_name, run_stage_flow
from flows.rounds.forms import (
    DryRunField,
    OverridesField,
    RecipeField,
    RunField,
    ScoreForm,
    SeedField,
    StoreField,
    titled,
)


@flow(name="score-with-rewards", flow_run_name=run_name, result_serializer="json")
def score_with_rewards(
    recipe: RecipeField = DEFAULT_RECIPE,
    store: StoreField = DEFAULT_STORE,
    seed: SeedField = None,
    dry_run: DryRunField = False,
    score: Annotated[ScoreForm, titled("Score")] = ScoreForm(),
    overrides: OverridesField = NO_OVERRIDES,
    run: RunField = "",
) -> dict[str, Any]:
    """Have every training clip scored by every reward of the recipe.

    Args:
        recipe: The settings to start from: one of vidloop's recipes.
        store: The folder that keeps everything.
        seed: All randomness derives from it; empty: the recipe's.
        dry_run: Only say what would run, and what the store holds already.
        score: Changes to this stage.
        overrides: Changes to anything else in the recipe, each like finetune.steps=100.
        run: The round that this run is part of.
    """
    return run_stage_flow("score", locals())
