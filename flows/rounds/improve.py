"""Flow `improve`: rounds in a row, each a subflow `round`, from champion to champion."""

from __future__ import annotations

from typing import Any

from data.store import Store
from flows.reporting.artifacts.showing import show_series
from flows.rounds import campaign
from flows.rounds.common import run_here, run_name, tell_plan
from flows.rounds.round import play_subflow
from flows.rounds.run_request import RunRequest, flow_of, with_forms


def play_improve(asked: RunRequest) -> dict[str, Any]:
    """Play rounds in the flow run at work; returns their record, or the plan of a dry run."""
    if asked.dry_run:
        return tell_plan(asked, "policy=champion")
    store = Store.open(asked.store, create=True)
    series = campaign.improve(asked.read_recipe(), store, play_subflow, run_here)
    show_series(series)
    return campaign.finish(store, series)


improve_flow = flow_of(
    "improve",
    with_forms(RunRequest, improve="How many rounds, on which clips, and when to stop."),
    "Play rounds from champion to champion until the recipe's part `improve` says stop.",
    play_improve,
    run_name,
)
