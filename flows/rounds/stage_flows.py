"""The stages as flows: `generate-videos`, `score-with-rewards`, ..., one for each entry of the table."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from prefect import Flow

from flows.rounds.common import run_name, run_stage_flow
from flows.rounds.run_request import StageRequest, flow_of, with_forms
from tasks.stages import STAGES

FLOWS: Final[Mapping[str, Flow[..., dict[str, Any]]]] = {
    stage: flow_of(
        spec.flow,
        with_forms(StageRequest, **{stage: "Changes to this stage."}),
        spec.does,
        partial(run_stage_flow, stage),
        run_name,
    )
    for stage, spec in STAGES.items()
}
"""Of each stage."""

# Deployments name a flow by this file and its function: flows/rounds/stage_flows.py:generate_videos.
globals().update({flow.fn.__name__: flow for flow in FLOWS.values()})
