"""Flow `study`: a grid of feedbacks and objectives, played by worker processes of its own."""

from __future__ import annotations

import dataclasses
from typing import Any

from prefect import flow

from data.store import Store
from flows import terminal
from flows.studying.engine import play
from flows.studying.grid import parts
from flows.studying.recipe import load_study
from flows.studying.showing import conclude
from flows.telling import DEFAULT_STORE

DEFAULT_STUDY = "recipes/study-mini.yaml"
NOTHING_SET: list[str] = []
NO_PARTS: list[str] = []


@flow(name="study", result_serializer="json")
def study_flow(
    recipe: str = DEFAULT_STUDY,
    store: str = DEFAULT_STORE,
    overrides: list[str] = NOTHING_SET,
    only: list[str] = NO_PARTS,
    max_minutes: float | None = None,
) -> dict[str, Any]:
    """Play the study, or what is left of it.

    Args:
        recipe: A YAML file with the grid, from the working folder or from vidloop's checkout.
        store: The folder that keeps everything.
        overrides: Changes to the study, each like seeds=[0].
        only: These parts of it; empty for all.
        max_minutes: Begin nothing later than this; the next run continues.
    """
    say = terminal.current().says
    opened = Store.open(store, create=True)
    outcome = play(load_study(recipe, overrides), opened, parts(only), say, max_minutes)
    conclude(outcome, say)
    return dataclasses.asdict(outcome)
