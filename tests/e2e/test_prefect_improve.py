from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from data.store import Store
from flows.config.load import load_recipe
from flows.rounds.campaign import improve
from flows.rounds.plain import plain_round
from tests.prefect_server import Server
from tests.tiny_round import Ended, Tiny, committed


@pytest.mark.slow
def test_rounds_are_subflows_and_do_the_same_work_as_without(
    tiny: Tiny, vidloop: Callable[..., Ended], prefect_server: Server, tmp_path: Path
) -> None:
    ended = vidloop("improve", "--rounds", "1", *tiny.args(), **prefect_server.environment)
    assert ended.code == 0, ended.err
    assert "Stopped: all 1 rounds are played" in ended.out
    flows = {flow["id"]: flow["name"] for flow in prefect_server.ask("/flows/filter")}
    (run,) = [run for run in prefect_server.flow_runs() if flows[run["flow_id"]] == "improve"]
    assert run["state_name"] == "Completed"
    assert [flows[child["flow_id"]] for child in prefect_server.flow_runs(run["id"])] == ["round"]
    shown = {one["key"]: one for one in prefect_server.ask("/artifacts/latest/filter", limit=200)}
    (row,) = json.loads(shown["series-tiny"]["data"])
    assert shown["series-tiny"]["flow_run_id"] == run["id"]
    assert row["id"] in shown["round-report-tiny"]["data"]

    plain = Store.open(tmp_path / "plain", create=True)
    improve(load_recipe(str(tiny.recipe), ["improve.rounds=1"]), plain, plain_round)
    assert committed(plain.root) == committed(tiny.store)
