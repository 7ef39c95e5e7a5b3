from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.prefect_server import Server
from tests.tiny_round import ROOT, Ended, Tiny, cached, committed, play, summaries

# Units of each stage; those of evaluate come in three lists, those of each other stage in one.
TASKS = 3 + 3 + 1 + 1 + (2 + 2 + 1)
LISTS = 1 + 1 + 1 + 1 + 3


def newest_round(server: Server) -> str:
    return [run["id"] for run in server.flow_runs() if run["parent_task_run_id"] is None][-1]


@pytest.mark.slow
def test_round_on_a_server(
    tiny: Tiny, vidloop: Callable[..., Ended], prefect_server: Server, tmp_path: Path
) -> None:
    """One story, because every step needs the one before: play, play again, lose a shard, deploy."""
    ended = vidloop("round", *tiny.args(), **prefect_server.environment)
    assert ended.code == 0, ended.err
    assert "Not promoted" in ended.out
    assert "policy: WanTransformer3DModel on cpu in float32" in ended.out
    told = {name: stage.get("networks") for name, stage in summaries(tiny.store)[-1]["stages"].items()}
    assert told["generate"].keys() == told["evaluate"].keys() == {"policy", "text encoder", "vae"}
    assert told["finetune"].keys() == {"policy"}
    first = newest_round(prefect_server)
    round_id = summaries(tiny.store)[-1]["round"]
    flows = {flow["id"]: flow["name"] for flow in prefect_server.ask("/flows/filter")}
    stages = [flows[run["flow_id"]] for run in prefect_server.flow_runs(first)]
    assert stages == [
        "generate-videos",
        "score-with-rewards",
        "curate-dataset",
        "offline-rl-finetune",
        "evaluate",
    ]
    names = [run["name"] for run in prefect_server.flow_runs(first)]
    assert names == [f"{stage}: tiny dpo-anchor seed 0, round {round_id}" for stage in stages]
    (own,) = [run["name"] for run in prefect_server.flow_runs() if run["id"] == first]
    assert own == f"tiny dpo-anchor seed 0, round {round_id}"
    assert prefect_server.task_states(first, TASKS) == {"Completed": TASKS}

    shown = {one["key"]: one for one in prefect_server.ask("/artifacts/latest/filter", limit=200)}
    assert shown.keys() >= {"round-report-tiny", "gains-tiny", "rewards-tiny", "progress-round"}
    assert {f"progress-{stage}" for stage in ("generate", "score", "curate", "finetune")} <= shown.keys()
    assert shown["round-report-tiny"]["flow_run_id"] == shown["progress-round"]["flow_run_id"] == first
    assert f"`{round_id}`" in shown["round-report-tiny"]["data"]
    assert (shown["progress-round"]["data"], shown["progress-generate"]["data"]) == (100.0, 100.0)

    # Without Prefect, the very same work.
    plain = tiny.at(tmp_path / "plain")
    play(plain)
    assert committed(plain.store) == committed(tiny.store)

    # What is whole is one task run a list, however many units that are, and names them.
    assert vidloop("round", *tiny.args(), **prefect_server.environment).code == 0
    again = newest_round(prefect_server)
    assert prefect_server.task_states(again, LISTS) == {"Cached": LISTS}
    assert cached(summaries(tiny.store)[-1]) == {
        "generate": (3, 3), "score": (3, 3), "curate": (1, 1), "finetune": (1, 1), "evaluate": (5, 5)
    }  # fmt: skip
    names = [run["name"] for run in prefect_server.task_runs(again)]
    assert sorted(names)[:4] == ["2 units", "2 units", "3 units", "3 units"]
    said = [line for line in prefect_server.log(again) if line.startswith("Whole in the store:\n")]
    assert sorted(line.count("\n") for line in said) == [1, 1, 1, 2, 2, 3, 3]
    assert "Whole in the store:\nclips 1-" in said[0]

    before = committed(tiny.store)
    sorted((tiny.store / "manifests" / "score").iterdir())[0].unlink()
    assert vidloop("round", *tiny.args(), **prefect_server.environment).code == 0
    states = prefect_server.task_states(newest_round(prefect_server), LISTS + 1)
    assert states == {"Cached": LISTS, "Completed": 1}
    assert committed(tiny.store) == before
    assert cached(summaries(tiny.store)[-1])["generate"] == (3, 3)

    # What there is to know lies in the store, and nothing beside it.
    assert not (tiny.store / "prefect-results").exists()


def test_every_stage_can_be_called_alone_with_an_error_that_says_what_is_missing(
    tiny: Tiny, vidloop: Callable[..., Ended], prefect_server: Server
) -> None:
    ended = vidloop("generate", *tiny.args(), **prefect_server.environment)
    assert ended.code == 0, ended.err
    ended = vidloop("curate", *tiny.args(), **prefect_server.environment)
    assert ended.code == 2
    assert "the score stage of this recipe is not whole" in ended.err
    assert "Traceback" not in ended.err + ended.out


def test_deploy(prefect_server: Server) -> None:
    created = prefect_server.command("work-pool", "create", "vidloop", "--type", "process")
    assert created.returncode == 0, created.stderr
    done = prefect_server.command("deploy", "--all", cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    deployments = {one["name"]: one for one in prefect_server.ask("/deployments/filter")}
    assert deployments.keys() == {
        "round",
        "improve",
        "nightly",
        "gc",
        "study",
        "generate",
        "score",
        "curate",
        "finetune",
        "evaluate",
    }
    queues = {name: one["work_queue_name"] for name, one in deployments.items()}
    assert {name for name, queue in queues.items() if queue == "nightly"} == {"nightly", "gc"}
    assert {*queues.values()} == {"people", "nightly"}
    assert [one["active"] for one in deployments["nightly"]["schedules"]] == [False]
    form = deployments["round"]["parameter_openapi_schema"]["properties"]
    assert "recipes/mini.yaml" in form["recipe"]["enum"]
    assert form["recipe"]["description"].startswith("The settings to start from")
    assert form["from_stage"]["enum"] == ["generate", "score", "curate", "finetune", "evaluate"]
