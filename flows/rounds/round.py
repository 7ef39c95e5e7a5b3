"""Flow `round`: the stages as subflows, then the gate and the champion."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator
from pydantic.json_schema import SkipJsonSchema

from data.store import Store
from flows.reporting.artifacts import progress
from flows.reporting.artifacts.showing import show_round
from flows.rounds import notify
from flows.rounds.common import name_run, run_name, tell_plan
from flows.rounds.run_request import StageRequest, flow_of, titled, with_forms
from flows.rounds.run_round import begin, context_of, play
from flows.rounds.stage_flows import FLOWS
from tasks.context import RoundContext
from tasks.promotion import Promotion
from tasks.stages import FIRST, STAGES
from tasks.summary import RoundSummary
from tasks.units import StageResult


class RoundRequest(StageRequest):
    """A round, from its beginning or going on with one that has begun."""

    from_stage: Annotated[str, titled("From stage", enum=[*STAGES])] = Field(
        FIRST, description="The stages before this one must be whole in the store."
    )
    promotion: SkipJsonSchema[Promotion] = Field(
        "at once", description="Whether the gate's yes is enough; not in the form."
    )

    @field_validator("from_stage")
    @classmethod
    def _is_a_stage(cls, name: str) -> str:
        if name not in STAGES:
            raise ValueError(f"there is no stage {name!r}; there are {', '.join(STAGES)}")
        return name


def play_round(asked: RoundRequest) -> dict[str, Any]:
    """Play a round in the flow run at work; returns its summary, or the plan of a dry run."""
    if asked.dry_run:
        return tell_plan(asked)
    if asked.run:
        context = context_of(asked.store, asked.run)
    else:
        context = begin(asked.read_recipe(), Store.open(asked.store, create=asked.from_stage == FIRST))
    root = context.generation.root

    def call(stage: str) -> StageResult:
        return StageResult(**FLOWS[stage](store=root, run=context.run_id))

    name_run(context)
    with progress.of_round(context.run_id):
        summary = play(context, call, asked.from_stage, asked.promotion)
    show_round(context.store, summary)
    if asked.promotion == "at once":  # else whoever asked for something else has the last word
        notify.tell_verdict(summary)
    return summary.model_dump()


round_flow = flow_of(
    "round",
    with_forms(RoundRequest, **{stage: f"Changes to stage {n}." for n, stage in enumerate(STAGES, start=1)}),
    "Generate, score, curate, finetune, evaluate; promote the candidate if the gate lets it through.",
    play_round,
    run_name,
)


def play_subflow(context: RoundContext, promotion: Promotion = "at once") -> RoundSummary:
    """Play a round that has begun, as a subflow of the flow run at work; returns its summary."""
    return RoundSummary.model_validate(
        round_flow(store=context.generation.root, run=context.run_id, promotion=promotion)
    )
