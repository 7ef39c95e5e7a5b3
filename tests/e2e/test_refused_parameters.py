"""A run that was made through Prefect's API with parameters that its flow does not take says so itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from typing import Any

import pytest

from tests.prefect_server import Server
from tests.tiny_round import Tiny

pytestmark = pytest.mark.slow


def ended(server: Server, parameters: dict[str, Any]) -> dict[str, Any]:
    """State of a run of the flow `round`, made by the API and played as a worker plays it."""
    flow = server.ask("/flows/", name="round")
    run = server.ask("/flow_runs/", flow_id=flow["id"], parameters=parameters, state={"type": "PENDING"})
    done = subprocess.run(
        [sys.executable, "-m", "prefect.engine", run["id"]], capture_output=True, text=True, timeout=300,
        env={**os.environ, **server.environment, "PREFECT__FLOW_ENTRYPOINT": "flows.rounds.round.round_flow"},
    )  # fmt: skip
    with urllib.request.urlopen(f"{server.url}/flow_runs/{run['id']}", timeout=60) as answer:
        state: dict[str, Any] = json.load(answer)["state"]
    assert done.returncode == (0 if state["type"] != "CRASHED" else 1), done.stderr
    return state


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        (
            {"nonsense": 1},
            ("nonsense: unknown key", "It takes: recipe, store, seed, from_stage, ", "finetune", "overrides"),
        ),
        ({"sed": 1}, ("sed: unknown key", "did you mean seed?")),
        ({"seed": "many"}, ("seed", "valid integer")),
        ({"finetune": {"stepz": 3}}, ("finetune.stepz: unknown key", "did you mean finetune.steps?")),
        ({"overrides": ["finetune.stepz=3"]}, ("--set finetune.stepz", "did you mean finetune.steps?")),
    ],
)
def test_the_state_names_the_parameter_and_the_known_ones(
    parameters: dict[str, Any], said: tuple[str, ...], tiny: Tiny, prefect_server: Server
) -> None:
    state = ended(prefect_server, {"recipe": str(tiny.recipe), "store": str(tiny.store), **parameters})
    assert state["type"] == "FAILED", state
    assert [word for word in said if word not in state["message"]] == [], state["message"]
    assert not tiny.store.exists()
