"""Flow `improve`: rounds in a row, each a subflow `round`, from champion to champion."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow

from data.store import Store
from flows.config.load import load_recipe
from flows.reporting.artifacts.showing import show_series
from flows.reporting.messages import DEFAULT_STORE
from flows.rounds import campaign
from flows.rounds.campaign import finish
from flows.rounds.common import DEFAULT_RECIPE, NO_OVERRIDES, run_name, tell_plan
from flows.rounds.forms import (
    DryRunField,
    ImproveForm,
    OverridesField,
    RecipeField,
    SeedField,
    StoreField,
    overrides_of,
    titled,
)
from flows.rounds.round import round_flow
from tasks.context import RoundContext


@flow(name="improve", flow_run_name=run_name, result_serializer="json")
def improve_flow(
    recipe: RecipeField = DEFAULT_RECIPE,
    store: StoreField = DEFAULT_STORE,
    seed: SeedField = None,
    dry_run: DryRunField = False,
    improve: Annotated[ImproveForm, titled("Improve")] = ImproveForm(),
    overrides: OverridesField = NO_OVERRIDES,
) -> dict[str, Any]:
    """Play rounds from champion to champion until the recipe's part `improve` says stop.

    Args:
        recipe: The settings to start from: one of vidloop's recipes.
        store: The folder that keeps everything.
        seed: Of the first round; the others derive theirs from it. Empty: the recipe's.
        dry_run: Only say what the first round would run, and what the store holds already.
        improve: How many rounds, on which clips, and when to stop.
        overrides: Changes to anything else in the recipe, each like finetune.steps=100.
    """
    given = locals()
    if dry_run:
        return tell_plan(given | {"overrides": [*overrides, "policy=champion"]})
    opened = Store.open(store, create=True)

    def play(context: RoundContext) -> dict[str, Any]:
        summary: dict[str, Any] = round_flow(store=context.generation.root, run=context.run_id)
        return summary

    series = campaign.improve(load_recipe(recipe, overrides_of(given)), opened, play)
    show_series(series)
    return finish(opened, series)
