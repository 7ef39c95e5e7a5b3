"""`vidloop serve`: from nothing to a UI whose forms start rounds, behind an auth string, on loopback alone."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from flows.serving.api_client import Refused, ask
from flows.serving.server_config import POOL
from flows.serving.supervisor import bootstrap_command
from tests.served import (
    ENDED,
    PATIENCE_S,
    Served,
    alive,
    manifests,
    newest_summary,
    parts_are_whole,
    serving,
    wait_for,
)
from tests.tiny_round import ROOT, Ended, cached

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    with serving(folder, tiny_model, devices=("standin-0", "standin-1")) as one:
        yield one


# What a monitor may ask without the auth string (docs/prefect.md); they say whether the server lives, and no more.
OPEN = {("GET", "/health"), ("GET", "/ready")}


def test_without_the_auth_string_every_call_is_refused(served: Served) -> None:
    """Every operation that the server's own description lists, whatever stands in its path."""
    described = ask(served.config.ui, "/openapi.json", timeout_s=120)
    operations = {
        (method.upper(), path) for path, methods in described["paths"].items() for method in methods
    }
    assert len(operations) > 150
    assert operations > OPEN
    connection = http.client.HTTPConnection(served.config.host, served.config.port, timeout=120)

    def status(method: str, path: str, **headers: str) -> int:
        body = b"{}" if method in ("POST", "PUT", "PATCH") else None
        connection.request(method, path, body, {"content-type": "application/json", **headers})
        answer = connection.getresponse()
        answer.read()
        return answer.status

    guessed = base64.b64encode(b"vidloop:guessed").decode()
    right = base64.b64encode(served.auth.encode()).decode()
    # Nor does it help to ask for a thing that is called like what is open.
    for named in (str(uuid.uuid4()), "health", "ready"):
        for method, path in sorted(operations - OPEN):
            asked = "/api" + re.sub(r"{[^}]*}", named, path)
            assert status(method, asked) == 401, (method, asked)
            if named != "ready":
                assert status(method, asked, authorization=f"Basic {guessed}") == 401, (method, asked)
    for header in (
        "",
        "Basic",
        "Basic !",
        f"Bearer {right}",
        right,
        "Basic " + base64.b64encode(b":").decode(),
    ):
        assert status("GET", "/api/admin/settings", authorization=header) == 401, header
    assert status("GET", "/api/admin/settings", host="127.0.0.1/api/health") == 401
    assert {status(method, f"/api{path}") for method, path in OPEN} == {200}
    assert status("GET", "/api/admin/settings", authorization=f"Basic {right}") == 200


WEBSOCKETS = """
import json
from prefect.server.api.server import API_ROUTERS
from starlette.routing import WebSocketRoute

routes = [route for router in API_ROUTERS for route in router.routes]
print(json.dumps(sorted("/api" + route.path for route in routes if isinstance(route, WebSocketRoute))))
"""


def test_without_the_auth_string_no_websocket_opens(served: Served) -> None:
    """Every websocket of the server: not without a word, not with another one first, not with a guess."""
    environment = served.config.server_environment(served.auth)
    listed = subprocess.run(
        [sys.executable, "-c", WEBSOCKETS], env=environment, capture_output=True, text=True, check=True
    )
    paths = json.loads(listed.stdout.splitlines()[-1])
    assert (
        len(paths) == 5
    )  # events in and out, logs out, tasks, workers: a new one is walked too, once counted
    address = served.config.ui.replace("http://", "ws://")

    def answer(path: str, first: dict[str, str] | None, spoken: bool = True) -> dict[str, str] | None:
        """What the server says to the first message; None if it closes."""
        from websockets.exceptions import ConnectionClosed, InvalidStatus
        from websockets.sync.client import connect
        from websockets.typing import Subprotocol

        speaks = [Subprotocol("prefect")] if spoken else None
        try:
            with connect(f"{address}{path}", subprotocols=speaks, open_timeout=60) as socket:
                if first is not None:
                    socket.send(json.dumps(first))
                return dict(json.loads(socket.recv(timeout=60)))
        except (ConnectionClosed, InvalidStatus):
            return None

    for path in (re.sub(r"{[^}]*}", POOL, one) for one in paths):
        assert answer(path, None, spoken=False) is None, path
        assert answer(path, {"type": "filter"}) is None, path
        assert answer(path, {"type": "auth"}) is None, path
        assert answer(path, {"type": "auth", "token": "vidloop:guessed"}) is None, path
        assert answer(path, {"type": "auth", "token": served.auth}) == {"type": "auth_success"}, path


def test_it_listens_on_loopback_alone(served: Served) -> None:
    """The server, and whatever else of `vidloop serve` listens: nobody said --host."""
    held = set()
    for pid in served.processes():
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                held.add(os.readlink(descriptor))
    listening = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        rows = [line.split() for line in Path(table).read_text().splitlines()[1:]]
        listening |= {row[1]: row[9] for row in rows if row[3] == "0A"}
    ours = [address for address, inode in listening.items() if f"socket:[{inode}]" in held]
    loopback = "0100007F"  # 127.0.0.1, as the kernel writes it on a little-endian machine
    assert f"{loopback}:{served.config.port:04X}" in ours
    assert {address.rpartition(":")[0] for address in ours} == {loopback}


def test_the_auth_string_is_in_no_command_line_and_no_log(served: Served) -> None:
    assert served.config.auth_file.stat().st_mode & 0o777 == 0o600
    password = served.auth.partition(":")[2]
    assert len(password) >= 32
    assert not [line for line in served.processes().values() if password in line]
    written = [served.said, *(Path(served.config.folder) / "logs").iterdir()]
    assert not [path for path in written if password in path.read_text(errors="replace")]


def test_the_forms(served: Served) -> None:
    held = {one["name"]: one for one in served.ask("/deployments/filter", {})}
    declared = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert held.keys() == {one["name"] for one in declared}
    stages = {"generate", "score", "curate", "finetune", "evaluate"}
    assert held.keys() == {"round", "improve", "nightly", "study", "gc"} | stages
    schema = held["round"]["parameter_openapi_schema"]
    form = schema["properties"]
    shown = sorted(form, key=lambda name: form[name]["position"])
    assert shown == [
        "recipe", "store", "seed", "from_stage", "dry_run", "generate", "score", "curate", "finetune", "evaluate",
        "overrides",
    ]  # fmt: skip
    for name, one in form.items():
        title = one.get("title") or schema["definitions"][one["$ref"].rpartition("/")[2]]["title"]
        assert title[0].isupper(), name
        assert one["description"], name
    assert "recipes/mini.yaml" in form["recipe"]["enum"]
    assert str(served.tiny.recipe) in form["recipe"]["enum"]
    assert held["round"]["parameters"]["store"] == str(served.tiny.store)
    # an empty number is one that is not sent: null is none, and would be refused
    fields = [
        field for one in held.values() for field in one["parameter_openapi_schema"]["properties"].values()
    ]
    assert all(field.get("default", "") is not None for field in fields)
    assert held["study"]["parameter_openapi_schema"]["properties"]["recipe"]["enum"] == [
        "recipes/study-mini.yaml",
        "recipes/study-search-mini.yaml",
    ]
    finetune = schema["definitions"]["FinetuneForm"]
    steps = finetune["properties"]["steps"]
    assert (steps["type"], steps["minimum"], steps["maximum"]) == ("integer", 1, 1_000_000)
    assert "rwr-exp" in finetune["properties"]["objective"]["enum"]
    for one in finetune["properties"].values():
        assert one["title"]
        assert one["description"]
        assert "default" not in one


@pytest.mark.parametrize(
    "wrong",
    [
        {"recipe": "recipes/none.yaml"},
        {"seed": -1},
        {"from_stage": "rest"},
        {"finetune": {"steps": 0}},
        {"finetune": {"objective": "ppo"}},
        {"generate": {"clips": 3}},
        {"evaluate": {"clips": "many"}},
    ],
)
def test_the_server_refuses_what_the_form_does_not_allow(served: Served, wrong: dict[str, object]) -> None:
    with pytest.raises(Refused) as refused:
        served.run("round", **wrong)
    assert refused.value.status in (409, 422)


def test_what_only_the_whole_recipe_shows_ends_the_run_at_once_with_words(served: Served) -> None:
    before = manifests(served.tiny.store)
    run = served.run("round", curate={"feedback": "clip"})
    found = served.until(run, *ENDED)
    assert found["state_type"] == "FAILED"
    assert (
        "feedback 'clip' learns from the reward 'clip', which `rewards` does not list"
        in found["state"]["message"]
    )
    assert manifests(served.tiny.store) == before


def test_a_dry_run_says_what_would_run_and_does_nothing(served: Served) -> None:
    before = manifests(served.tiny.store)
    run = served.run("round", dry_run=True, finetune={"steps": 5})
    assert served.until(run, *ENDED)["state_type"] == "COMPLETED"
    lines = wait_for(
        "plan in the log", lambda: [line for line in served.log(run) if "5 steps of 4 pairs" in line]
    )
    assert lines
    assert manifests(served.tiny.store) == before


def test_a_round_from_the_form_and_its_repetition(served: Served) -> None:
    run = served.run("round", seed=3, finetune={"steps": 4, "objective": "dpo"})
    found = served.until(run, *ENDED)
    assert found["state_type"] == "COMPLETED", served.log(run)
    summary = newest_summary(served.tiny.store)
    assert found["name"] == f"tiny dpo seed 3, round {summary['round']}"
    assert summary["recipe"]["finetune"]["steps"] == 4
    again = served.run("round", seed=3, finetune={"steps": 4, "objective": "dpo"}, from_stage="evaluate")
    assert served.until(again, *ENDED)["state_type"] == "COMPLETED"
    assert all(held == all_ for held, all_ in cached(newest_summary(served.tiny.store)).values())
    assert served.free("standin-0")
    assert served.free("standin-1")


def test_two_devices_work_at_once_and_each_run_sees_its_own(served: Served) -> None:
    runs = [served.run("generate", seed=seed, generate={"clips_per_prompt": 400}) for seed in (11, 12)]
    pids = [served.flow_process(run) for run in runs]
    seen = set()
    for pid in pids:
        pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
        environment = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        assert environment["CUDA_VISIBLE_DEVICES"] == environment["VIDLOOP_DEVICE"]
        seen.add(environment["VIDLOOP_DEVICE"])
    assert seen == {"standin-0", "standin-1"}
    wait_for("both devices held", lambda: not served.free("standin-0") and not served.free("standin-1"))
    assert [served.state(run) for run in runs] == ["RUNNING", "RUNNING"]

    # Cancelled as the UI does it: no process is left, and no half shard.
    for run in runs:
        served.ask(f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
    for run in runs:
        assert served.until(run, *ENDED)["state_type"] == "CANCELLED"
    wait_for("end of both processes", lambda: not alive(pids))
    wait_for("free devices", lambda: served.free("standin-0") and served.free("standin-1"), 30)
    assert manifests(served.tiny.store) > 0
    parts_are_whole(served.tiny.store)
    assert not any((served.tiny.store / "tmp").iterdir())


def test_a_person_overtakes_the_night(served: Served) -> None:
    """With no slot free, a run of the queue `people` that comes later starts before one of `nightly`."""
    served.set_slots(0)
    (held,) = served.ask("/deployments/filter", {"deployments": {"name": {"any_": ["round"]}}})
    path = f"/deployments/{held['id']}/create_flow_run"
    body = {
        "parameters": {"recipe": str(served.tiny.recipe), "dry_run": True},
        "state": {"type": "SCHEDULED"},
    }
    night = served.ask(path, {**body, "work_queue_name": "nightly"})["id"]
    person = served.ask(path, body)["id"]
    served.set_slots(1)
    begun = [served.until(run, "COMPLETED")["start_time"] for run in (night, person)]
    served.set_slots(2)
    assert begun[1] < begun[0]


def test_bootstrap_again_changes_nothing(served: Served) -> None:
    def known() -> list[object]:
        return [
            sorted((one["name"], one["id"]) for one in served.ask("/deployments/filter", {})),
            sorted((one["name"], one["id"], one["enabled"]) for one in served.ask("/automations/filter", {})),
            sorted(
                (one["name"], one["priority"]) for one in served.ask(f"/work_pools/{POOL}/queues/filter", {})
            ),
        ]

    before = known()
    assert before[2] == [("default", 2), ("nightly", 3), ("people", 1)]
    done = subprocess.run(
        bootstrap_command(served.config), cwd=ROOT,
        env=served.config.client_environment(served.auth), capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert known() == before


def test_doctor_is_content_and_says_what_is_not(
    served: Served, vidloop: Callable[..., Ended], tmp_path: Path
) -> None:
    looked = vidloop("doctor", "--serve", served.config.folder, "--store", served.tiny.store)
    assert f"ok    server {served.config.api} answers: Prefect 3.8" in looked.out
    assert "ok    2 of 2 workers poll: vidloop-standin-0, vidloop-standin-1" in looked.out

    def pool(word: str) -> None:
        environment = served.config.client_environment(served.auth)
        command = [sys.executable, "-m", "prefect", "--no-prompt", "work-pool", word, POOL]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)
        assert done.returncode == 0, done.stderr

    pool("pause")
    looked = vidloop("doctor", "--serve", served.config.folder, "--store", served.tiny.store)
    assert "it is paused, nothing starts" in looked.out
    assert looked.code == 2
    pool("resume")
    wrong = {"PREFECT_API_URL": f"{served.config.ui.replace('127.0.0.1', 'localhost')}/api"}
    looked = vidloop("doctor", "--serve", tmp_path, **wrong, PREFECT_API_AUTH_STRING="vidloop:guessed")
    assert "it refuses the auth string of PREFECT_API_AUTH_STRING" in looked.out
    assert looked.code == 2


def test_a_second_one_is_told_that_the_folder_and_the_port_are_taken(
    served: Served, vidloop: Callable[..., Ended], tmp_path: Path
) -> None:
    ended = vidloop("serve", "--folder", served.config.folder, "--port", "1")
    assert (ended.code, "another `vidloop serve` works here" in ended.err) == (2, True)
    ended = vidloop("serve", "--folder", tmp_path / "other", "--port", str(served.config.port))
    assert (ended.code, f"port {served.config.port} of 127.0.0.1 is not free" in ended.err) == (2, True)


def test_the_command_line_uses_the_server(served: Served, vidloop: Callable[..., Ended]) -> None:
    to_it = {"PREFECT_API_URL": served.config.api}
    only = {"flows": {"name": {"any_": ["generate-videos"]}}}
    before = served.ask("/flow_runs/count", only)
    ended = vidloop("generate", *served.tiny.args(), **to_it)
    assert ended.code == 2
    assert "refuses the auth string" in ended.err
    ended = vidloop("generate", *served.tiny.args(), **to_it, PREFECT_API_AUTH_STRING=served.auth)
    assert ended.code == 0, ended.err
    assert served.ask("/flow_runs/count", only) == before + 1


SIX = """
import sys
from prefect import flow, task

@task(task_run_name="{number}")
def nothing(number: int) -> int:
    return number

@flow(name="six")
def six() -> None:
    for number in range(100):
        nothing(number)

six()
"""


def test_six_flows_at_once_lose_no_row(served: Served, tmp_path: Path) -> None:
    (tmp_path / "six_flows.py").write_text(SIX)
    environment = served.config.client_environment(served.auth)
    flows = [
        subprocess.Popen(
            [sys.executable, str(tmp_path / "six_flows.py")],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(6)
    ]
    for flow in flows:
        said, _ = flow.communicate(timeout=PATIENCE_S)
        assert flow.returncode == 0, said
    only = {"flows": {"name": {"any_": ["six"]}}}
    completed = {"state": {"type": {"any_": ["COMPLETED"]}}}
    assert served.ask("/flow_runs/count", {**only, "flow_runs": completed}) == 6

    def recorded() -> bool:
        return bool(served.ask("/task_runs/count", {**only, "task_runs": completed}) == 600)

    wait_for("600 rows", recorded)
    assert "database is locked" not in served.config.log("server").read_text(errors="replace")
