"""Flow `nightly`: one more round from the champion; promoted by the gate, or after a person's word."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

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
from flows.reporting import console
from flows.reporting.artifacts.showing import show_round
from flows.rounds import night as nights
from flows.rounds import notify
from flows.rounds.approval import ask
from flows.rounds.campaign import finish
from flows.rounds.common import run_here, run_name, tell_lines
from flows.rounds.dry_run import plan_lines, store_to_look_at
from flows.rounds.night import Asking, Skipped
from flows.rounds.round import play_subflow
from flows.rounds.run_request import RunRequest, flow_of, titled, with_forms
from tasks.campaign_record import Waiting

SKIPPED = "Skipped"


class NightRequest(RunRequest):
    """One more round from the champion."""

    approval: Annotated[bool, titled("Approval by a person")] = Field(
        False,
        description="Ask a person before anything is promoted: the run is suspended, and resumed with a "
        "form.",
    )
    approval_hours: Annotated[float, Field(gt=0, le=24 * 14), titled("Hours to answer")] = Field(
        20.0,
        description="No answer in this time means no. Shorter than from one night to the next.",
    )


def night_name() -> str:
    """Recipe and objective: a night's seed is its own."""
    return run_name().partition(" seed ")[0]


def play_night(asked: NightRequest) -> dict[str, Any] | State[Any]:
    """Play a night in the flow run at work; returns the record of all of them, or the plan of a dry run."""
    recipe = asked.read_recipe()
    if asked.dry_run:
        with store_to_look_at(asked.store) as looked_at:
            forbidden = nights.forbidden(recipe, looked_at)
            said = [f"The next night would not be played: {forbidden}"] if forbidden else []
            return tell_lines([*said, *plan_lines(nights.to_look_at(recipe, looked_at))])
    store = Store.open(asked.store, create=True)
    run = flow_run.id or ""
    series = nights.asked_by(store, run)
    if series is None:
        missed = _missed(run)
        if missed:
            return _skip(missed)
        asking = Asking(_resumable(run), asked.approval_hours) if asked.approval else None
        played = nights.night(recipe, store, play_subflow, asking, _is_open, run_here)
        if isinstance(played, Skipped):
            return _skip(played.why)
        series = played
        notify.tell_verdict(nights.summary_of(store, series), series)
    if series.waiting is not None:
        answer = ask(store, series.waiting, nights.summary_of(store, series))
        series = nights.settle(store, series, answer)
        summary = nights.summary_of(store, series)
        show_round(store, summary)  # the card that stands there still waits for the answer
        notify.tell_verdict(summary, series)
    return finish(store, series)


def _skip(why: str) -> State[Any]:
    told = f"This night is not played: {why}"
    console.info(told)
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


nightly_flow = flow_of(
    "nightly",
    with_forms(NightRequest, night="Which prompts, and which clips to learn from."),
    "Play one round from the champion on clips of its own; promote the candidate if the gate agrees.",
    play_night,
    night_name,
)
