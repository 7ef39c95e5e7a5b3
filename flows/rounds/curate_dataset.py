"""Flow `curate-dataset`: what is worth learning from."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow

from flows.reporting.messages import DEFAULT_STORE
from flows.rounds.common import DEFAULT_RECIPE, NO_OVERRIDES, run_name, run_stage_flow
from flows.rounds.forms import (
    CurateForm,
    DryRunField,
    OverridesField,
    RecipeField,
    RunField,
    SeedField,
    StoreField,
    titled,
)


@flow(name="curate-dataset", flow_run_name=run_name, result_serializer="json")
def curate_dataset(
    recipe: RecipeField = DEFAULT_RECIPE,
    store: StoreField = DEFAULT_STORE,
    seed: SeedField = None,
    dry_run: DryRunField = False,
    curate: Annotated[CurateForm, titled("Curate")] = CurateForm(),
    overrides: OverridesField = NO_OVERRIDES,
    run: RunField = "",
) -> dict[str, Any]:
    """Have the examples and pairs of the recipe in the store.

    Args:
        recipe: The settings to start from: one of vidloop's recipes.
        store: The folder that keeps everything.
        seed: All randomness derives from it; empty: the recipe's.
        dry_run: Only say what would run, and what the store holds already.
        curate: Changes to this stage.
        overrides: Changes to anything else in the recipe, each like finetune.steps=100.
        run: The round that this run is part of.
    """
    return run_stage_flow("curate", locals())
