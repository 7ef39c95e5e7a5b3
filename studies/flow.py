"""Flow `study`: a grid of feedbacks and objectives, played by worker processes of its own."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

from prefect import flow
from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from data.store import Store
from flows.config.load import offered
from flows.reporting import console
from flows.reporting.messages import DEFAULT_STORE
from flows.rounds.run_request import OverridesField, StoreField
from studies.engine import play
from studies.grid import PARTS, parts
from studies.messages import conclude
from studies.recipe import load_study

DEFAULT_STUDY = "recipes/study-mini.yaml"
NOTHING_SET: list[str] = []
NO_PARTS: list[str] = []

# Only the form insists on what it offers: in code any path will do, and `parts` checks the names.
StudyField = Annotated[str, Field(json_schema_extra={"title": "Study", "enum": [*offered(studies=True)]})]
PartsField = Annotated[
    list[str],
    Field(json_schema_extra={"title": "Only these parts", "items": {"type": "string", "enum": [*PARTS]}}),
]
MinutesField = Annotated[
    Annotated[float, Field(gt=0)] | SkipJsonSchema[None],
    Field(json_schema_extra={"title": "Minutes at most"}),
]


@flow(name="study", result_serializer="json")
def study_flow(
    recipe: StudyField = DEFAULT_STUDY,
    store: StoreField = DEFAULT_STORE,
    only: PartsField = NO_PARTS,
    max_minutes: MinutesField = None,
    overrides: OverridesField = NOTHING_SET,
) -> dict[str, Any]:
    """Play the study, or what is left of it.

    Args:
        recipe: A YAML file with the grid, from the working folder or from vidloop's checkout.
        store: The folder that keeps everything.
        only: These parts of it; empty for all.
        max_minutes: Begin nothing later than this; the next run continues. Empty: no limit.
        overrides: Changes to the study, each like seeds=[0].
    """
    say = console.info
    opened = Store.open(store, create=True)
    outcome = play(load_study(recipe, overrides), opened, parts(only), say, max_minutes)
    conclude(outcome, say)
    return dataclasses.asdict(outcome)
