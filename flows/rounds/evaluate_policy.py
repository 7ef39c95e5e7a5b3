"""Flow `evaluate`: the policy before against the candidate."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow

from flows.reporting.messages import DEFAULT_STORE
from flows.rounds.common import DEFAULT_RECIPE, NO_OVERRIDES, run_name, run_stage_flow
from flows.rounds.forms import (
    DryRunField,
    EvaluateForm,
    OverridesField,
    RecipeField,
    RunField,
    SeedField,
    StoreField,
    titled,
)


@flow(name="evaluate", flow_run_name=run_name, result_serializer="json")
def evaluate_policy(
    recipe: RecipeField = DEFAULT_RECIPE,
    store: StoreField = DEFAULT_STORE,
    seed: SeedField = None,
    dry_run: DryRunField = False,
    evaluate: Annotated[EvaluateForm, titled("Evaluate")] = EvaluateForm(),
    overrides: OverridesField = NO_OVERRIDES,
    run: RunField = "",
) -> dict[str, Any]:
    """Compare both policies on prompts they were not trained on. The champion stays as it is.

    Args:
        recipe: The settings to start from: one of vidloop's recipes.
        store: The folder that keeps everything.
        seed: All randomness derives from it; empty: the recipe's.
        dry_run: Only say what would run, and what the store holds already.
        evaluate: Changes to this stage.
        overrides: Changes to anything else in the recipe, each like finetune.steps=100.
        run: The round that this run is part of.
    """
    return run_stage_flow("evaluate", locals())
