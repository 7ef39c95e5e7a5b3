"""The study as a Prefect flow: one run that leaves the rows that `--plain` leaves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from data.store import Store
from tests.prefect_server import Server
from tests.tiny_round import Ended
from tests.tiny_study import TinyStudy


@pytest.mark.slow
def test_a_study_as_a_flow(
    tiny_study: TinyStudy, vidloop: Callable[..., Ended], prefect_server: Server
) -> None:
    small = ["--only", "main", "--set", "seeds=[0]", "--set", "best_of=null", "--set", "workers=0"]
    args = [one for one in tiny_study.args(*small) if one != "--plain"]
    ended = vidloop(*args, **prefect_server.environment)
    assert ended.code == 0, ended.err

    flows = {flow["id"]: flow["name"] for flow in prefect_server.ask("/flows/filter")}
    (run,) = [run for run in prefect_server.flow_runs() if flows[run["flow_id"]] == "study"]
    assert run["state_name"] == "Completed"
    store = Store.open(tiny_study.store)
    rows = [row for one in store.manifests("study") for row in store.read(one.key, "studies")]
    assert Counter(row.variant for row in rows) == {"tuning": 6, "main": 5}
