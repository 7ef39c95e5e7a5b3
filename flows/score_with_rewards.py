"""Flow `score-with-rewards`: what the rewards say of the clips."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.stage_flows import DEFAULT_RECIPE, NO_OVERRIDES, run_name, run_stage_flow
from flows.telling import DEFAULT_STORE


@flow(name="score-with-rewards", flow_run_name=run_name, result_serializer="json")
def score_with_rewards(
    recipe: str = DEFAULT_RECIPE,
    store: str = DEFAULT_STORE,
    overrides: list[str] = NO_OVERRIDES,
    run: str = "",
) -> dict[str, Any]:
    """Have every training clip scored by every reward of the recipe.

    Args:
        recipe: A YAML file, from the working folder or from vidloop's checkout.
        store: The folder that keeps everything.
        overrides: Changes to the recipe, each like finetune.steps=100.
        run: The round that this run is part of; leave it empty to run the stage alone.
    """
    return run_stage_flow("score", recipe, store, overrides, run)
