"""A real Prefect server, one a session: on SQLite, or with VIDLOOP_TEST_DATABASE=postgres on Postgres."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flows.serving import prefect_settings
from tests.postgres import postgres


@dataclass(frozen=True)
class Server:
    """Where the server is, and the environment of its clients."""

    url: str
    environment: dict[str, str]

    def ask(self, path: str, **body: Any) -> Any:
        request = urllib.request.Request(
            f"{self.url}{path}", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def flow_runs(self, parent: str | None = None) -> list[dict[str, Any]]:
        """Flow runs, oldest first; all, or the subflows of one."""
        body: dict[str, Any] = {"sort": "EXPECTED_START_TIME_ASC", "limit": 200}
        if parent:
            body["flow_runs"] = {"parent_flow_run_id": {"any_": [parent]}}
        return self.ask("/flow_runs/filter", **body)

    def task_runs(self, parent: str) -> list[dict[str, Any]]:
        """The tasks in the subflows of a run."""
        children = [run["id"] for run in self.flow_runs(parent)]
        found: list[dict[str, Any]] = self.ask(
            "/task_runs/filter", flow_runs={"id": {"any_": children}}, limit=200
        )
        return found

    def task_states(self, parent: str, expected: int) -> Counter[str]:
        """State names of the tasks in the subflows of a run. Rows are written late: wait for as many as expected."""
        runs: list[dict[str, Any]] = []
        for _ in range(600):
            runs = self.task_runs(parent)
            settled = [run for run in runs if run["state_type"] in ("COMPLETED", "FAILED", "CRASHED")]
            if len(settled) >= expected:
                break
            time.sleep(0.2)
        return Counter(run["state_name"] for run in runs)

    def log(self, parent: str) -> list[str]:
        """What the subflows of a run and their tasks said, oldest first."""
        children = [run["id"] for run in self.flow_runs(parent)]
        wanted = {"logs": {"flow_run_id": {"any_": children}}, "sort": "TIMESTAMP_ASC", "limit": 200}
        return [line["message"] for line in self.ask("/logs/filter", **wanted)]

    def command(self, *args: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run the `prefect` command against this server."""
        return subprocess.run(
            [sys.executable, "-m", "prefect", "--no-prompt", *args],
            env={**os.environ, **self.environment}, cwd=cwd, capture_output=True, text=True, timeout=300,
        )  # fmt: skip


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    database = os.environ.get("VIDLOOP_TEST_DATABASE", "sqlite")
    home = tmp_path_factory.mktemp("prefect")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    environment = {
        **prefect_settings.DEFAULTS, **prefect_settings.ALWAYS, "PREFECT_HOME": str(home), "PREFECT_API_URL": url,
        "PYTHONPATH": os.getcwd(),
    }  # fmt: skip
    with ExitStack() as until_the_end:
        own = {}
        if database == "postgres":
            own["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = until_the_end.enter_context(postgres())
        else:
            assert database == "sqlite", f"VIDLOOP_TEST_DATABASE={database}: say sqlite or postgres"
        log = until_the_end.enter_context(open(home / "server.log", "wb"))
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)],
            env={**os.environ, **environment, **own}, stdout=log, stderr=log,
        )  # fmt: skip
        until_the_end.callback(process.wait, 60)
        until_the_end.callback(process.terminate)
        for _ in range(1200):
            try:
                urllib.request.urlopen(f"{url}/health", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, (home / "server.log").read_text()
                time.sleep(0.1)
        # It is where the test says, and nowhere else.
        assert (home / "prefect.db").exists() == (database == "sqlite")
        yield Server(url, environment)
