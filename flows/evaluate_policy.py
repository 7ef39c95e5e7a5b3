"""Flow `evaluate`: the policy before against the candidate."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.stage_flows import DEFAULT_RECIPE, NO_OVERRIDES, run_name, run_stage_flow
from flows.telling import DEFAULT_STORE


@flow(name="evaluate", flow_run_name=run_name, result_serializer="json")
def evaluate_policy(
    recipe: str = DEFAULT_RECIPE,
    store: str = DEFAULT_STORE,
    overrides: list[str] = NO_OVERRIDES,
    run: str = "",
) -> dict[str, Any]:
    """Compare both policies on prompts they were not trained on. The champion stays as it is.

    Args:
        recipe: A YAML file, from the working folder or from vidloop's checkout.
        store: The folder that keeps everything.
        overrides: Changes to the recipe, each like finetune.steps=100.
        run: The round that this run is part of; leave it empty to run the stage alone.
    """
    return run_stage_flow("evaluate", recipe, store, overrides, run)
