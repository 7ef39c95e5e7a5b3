"""Flow `nightly`: one more round from the champion; promoted by the gate, or after a person's word."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterEndTime,
    FlowRunFilterState,
    FlowRunFilterStateName,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import ObjectNotFound
from prefect.runtime import deployment, flow_run
from prefect.states import Completed
from pydantic import Field

from data.errors import ConfigError
from data.store import Store
from flows.config.load import load_recipe
from flows.reporting import console
from flows.reporting.artifacts.showing import show_round
from flows.reporting.messages import DEFAULT_STORE
from flows.rounds import night as nights
from flows.rounds import notify
from flows.rounds.approval import ask
from flows.rounds.campaign import finish
from flows.rounds.common import DEFAULT_RECIPE, NO_OVERRIDES, run_name
from flows.rounds.dry_run import plan_lines, store_to_look_at
from flows.rounds.forms import (
    DryRunField,
    NightForm,
    OverridesField,
    RecipeField,
    SeedField,
    StoreField,
    overrides_of,
    titled,
)
from flows.rounds.night import Asking, Skipped
from flows.rounds.round import round_flow
from tasks.campaign_record import Waiting
from tasks.context import RoundContext
from tasks.promotion import Promotion

DEFAULT_HOURS = 20.0
SKIPPED = "Skipped"


def night_name() -> str:
    """Recipe and objective: a night's seed is its own."""
    return run_name().partition(" seed ")[0]


@flow(name="nightly", flow_run_name=night_name, result_serializer="json")
def nightly_flow(
    recipe: RecipeField = DEFAULT_RECIPE,
    store: StoreField = DEFAULT_STORE,
    seed: SeedField = None,
    dry_run: DryRunField = False,
    approval: Annotated[bool, titled("Approval by a person")] = False,
    approval_hours: Annotated[
        float, Field(gt=0, le=24 * 14, json_schema_extra={"title": "Hours to answer"})
    ] = DEFAULT_HOURS,
    night: Annotated[NightForm, titled("Night")] = NightForm(),
    overrides: OverridesField = NO_OVERRIDES,
) -> dict[str, Any] | State[Any]:
    """Play one round from the champion on clips of its own; promote the candidate if the gate agrees.

    Args:
        recipe: The settings to start from: one of vidloop's recipes.
        store: The folder that keeps everything.
        seed: Every night derives its own from it; empty: the recipe's.
        dry_run: Only say what the next night would run, and what the store holds already.
        approval: Ask a person before anything is promoted: the run is suspended, and resumed with a form.
        approval_hours: No answer in this time means no. Shorter than from one night to the next.
        night: Which prompts, and which clips to learn from.
        overrides: Changes to anything else in the recipe, each like finetune.steps=100.
    """
    given = locals()
    if dry_run:
        return _tell_plan(given)
    opened = Store.open(store, create=True)
    run = flow_run.id or ""
    series = nights.asked_by(opened, run)
    if series is None:
        missed = _missed(run)
        if missed:
            return _skip(missed)

        def play(context: RoundContext, promotion: Promotion) -> dict[str, Any]:
            summary: dict[str, Any] = round_flow(
                store=context.generation.root, run=context.run_id, promotion=promotion
            )
            return summary

        read = load_recipe(recipe, overrides_of(given))
        asking = Asking(_resumable(run), approval_hours) if approval else None
        played = nights.night(read, opened, play, asking, _is_open)
        if isinstance(played, Skipped):
            return _skip(played.why)
        series = played
        notify.tell_verdict(nights.summary_of(opened, series))
    if series.waiting is not None:
        answer = ask(opened, series.waiting, nights.summary_of(opened, series))
        series = nights.settle(opened, series, answer)
        summary = nights.summary_of(opened, series)
        show_round(opened, summary)  # the card that stands there still waits for the answer
        notify.tell_verdict(summary)
    return finish(opened, series)


def _tell_plan(given: dict[str, Any]) -> dict[str, Any]:
    with store_to_look_at(given["store"]) as opened:
        context = nights.to_look_at(load_recipe(given["recipe"], overrides_of(given)), opened)
        lines = list(plan_lines(context))
    for line in lines:
        console.current().says(line)
    return {"plan": lines}


def _skip(why: str) -> State[Any]:
    told = f"This night is not played: {why}"
    console.current().says(told)
    notify.tell("skipped", reason=why)
    # Not Cancelled, which would end the run's process with an error.
    return Completed(name=SKIPPED, message=told, data={"skipped": why})


def _resumable(run: str) -> str:
    """`run`, if Prefect can start it again. Raises ConfigError if it cannot: then nobody could be asked."""
    if deployment.id is None:
        raise ConfigError("approval wants a run of the deployment `nightly`: start it in Prefect's UI")
    return run


def _missed(run: str) -> str | None:
    """Why a run that the schedule made has come too late; None if it has not.

    Prefect cancels a new run while another of the deployment is running. But those that came due while every
    slot was taken by other runs, or while there was no worker, wait and would all be started: several nights
    in a row.
    """
    with get_client(sync_client=True) as client:
        own = client.read_flow_run(UUID(run))
        if not own.auto_scheduled or own.deployment_id is None or own.expected_start_time is None:
            return None
        played = [StateType.COMPLETED, StateType.FAILED, StateType.CRASHED]
        since = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                deployment_id=FlowRunFilterDeploymentId(any_=[own.deployment_id]),
                end_time=FlowRunFilterEndTime(after_=own.expected_start_time),
                state=FlowRunFilterState(
                    type=FlowRunFilterStateType(any_=played), name=FlowRunFilterStateName(not_any_=[SKIPPED])
                ),
            ),
            limit=2,
        )
    others = [run for run in since if run.id != own.id]  # itself, where it is played again by Retry
    if not others:
        return None
    due = own.expected_start_time.isoformat(timespec="seconds")
    return f"it was due at {due}, and another run, {others[0].name}, was being played then or has been since"


def _is_open(waiting: Waiting) -> bool:
    """Whether the run that asked can still be answered."""
    with get_client(sync_client=True) as client:
        try:
            state = client.read_flow_run(UUID(waiting.run)).state
        except (ObjectNotFound, ValueError):  # another server's, or deleted
            return nights.in_time(waiting)
    return state is not None and not state.is_final()
