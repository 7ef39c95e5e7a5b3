from __future__ import annotations

import base64
import fcntl
import importlib.metadata
import json
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from data import device_lock
from flows.serving import checks
from flows.serving.api_client import ask
from flows.serving.checks import Finding, check_pins, check_serving
from flows.serving.server_config import ServerConfig


class _WebPage(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>another program</html>")

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def other_program() -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), _WebPage)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def served(folder: Path, port: int) -> ServerConfig:
    config = ServerConfig(
        folder=str(folder), host="127.0.0.1", port=port, store=str(folder / "store"), devices=("standin-9",)
    )
    config.auth()
    config.save()
    return config


def wrong(folder: Path) -> list[Finding]:
    return [finding for finding in check_serving(str(folder)) if not finding.fine]


def test_nothing_is_wrong_where_nobody_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    assert not wrong(tmp_path)


def test_nobody_listens(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    served(tmp_path, port)
    (finding,) = wrong(tmp_path)
    assert finding.what == f"server http://127.0.0.1:{port}/api"
    assert finding.remedy == "nobody listens there: start it with `make serve`"


def test_another_program_has_the_port(tmp_path: Path, other_program: int) -> None:
    served(tmp_path, other_program)
    (finding,) = wrong(tmp_path)
    assert finding.remedy.startswith("another program has the port")


def test_an_auth_file_that_others_can_read(tmp_path: Path) -> None:
    served(tmp_path, 1)
    (tmp_path / "auth").chmod(0o644)
    (finding,) = wrong(tmp_path)
    assert "can be read by others" in finding.remedy


def test_a_locked_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other_program: int) -> None:
    monkeypatch.setattr(checks, "_LOCK_PATIENCE_S", 0.2)
    served(tmp_path, other_program)
    (tmp_path / "prefect").mkdir()
    holding = sqlite3.connect(tmp_path / "prefect" / "prefect.db", isolation_level=None)
    holding.execute("CREATE TABLE t (x)")
    assert [finding.what for finding in wrong(tmp_path)] == [f"server http://127.0.0.1:{other_program}/api"]
    holding.execute("BEGIN IMMEDIATE")
    database = wrong(tmp_path)[0]
    assert "database is locked" in database.remedy
    holding.close()


def test_pins() -> None:
    held = list(check_pins())
    assert {one.what.split()[0] for one in held} == {"prefect", "fastapi", "sqlalchemy"}
    assert all(one.fine for one in held)


@pytest.mark.parametrize(("name", "release"), [("fastapi", "0.165.0"), ("prefect", "3.9.0")])
def test_a_release_outside_the_pins(name: str, release: str, monkeypatch: pytest.MonkeyPatch) -> None:
    held = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda one: release if one == name else held(one))
    (finding,) = [finding for finding in check_pins() if not finding.fine]
    assert finding.what.startswith(f"{name} {release} is within ")
    assert "make setup" in finding.remedy


# What a server of Prefect 3.8 with nothing amiss answers, cut to what the checks read; tests/e2e/test_serve.py
# has the real one looked at by `doctor`, content and with a paused pool.
POOL = {"name": "vidloop", "type": "process", "is_paused": False, "status": "READY", "concurrency_limit": 1}
QUEUES = [
    {"name": name, "priority": priority, "is_paused": False}
    for name, priority in (("people", 1), ("default", 2), ("nightly", 3))
]
WORKERS = [{"name": "vidloop-standin-9", "status": "ONLINE"}]
AUTOMATIONS = [
    {"name": "vidloop: a run that gives no sign of life is Crashed", "enabled": True},
    {"name": "vidloop: a run that does not start is Crashed", "enabled": True},
]


@contextmanager
def prefect(auth: str, **changed: Any) -> Iterator[int]:
    """The port of a server that answers so; `changed` is `pool`, `queues`, `workers` or `automations`."""
    said = {
        "/api/admin/version": "3.8.8",
        "/api/work_pools/vidloop": changed.get("pool", POOL),
        "/api/work_pools/vidloop/queues/filter": changed.get("queues", QUEUES),
        "/api/work_pools/vidloop/workers/filter": changed.get("workers", WORKERS),
        "/api/automations/filter": changed.get("automations", AUTOMATIONS),
    }
    wanted = "Basic " + base64.b64encode(auth.encode()).decode()

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            refused = self.headers.get("authorization") != wanted
            found = said.get(self.path)
            self.send_response(401 if refused else 200 if found is not None else 404)
            self.end_headers()
            self.wfile.write(json.dumps("Unauthorized" if refused else found).encode())

        do_POST = do_GET

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def looked_at(folder: Path, **changed: Any) -> list[Finding]:
    """What is wrong with a server in `folder` that differs from a good one in `changed`."""
    auth, _ = served(folder, 1).auth()
    with prefect(auth, **changed) as port:
        served(folder, port)
        return wrong(folder)


def test_nothing_is_wrong_with_a_good_server(tmp_path: Path) -> None:
    assert looked_at(tmp_path) == []


def test_the_wrong_auth_string(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with prefect("vidloop:another") as port:
        served(tmp_path, port)
        (finding,) = wrong(tmp_path)
        assert f"it refuses the auth string of {tmp_path / 'auth'}" in finding.remedy
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{port}/api")
        monkeypatch.delenv("PREFECT_API_AUTH_STRING", raising=False)
        (finding,) = wrong(tmp_path / "nowhere")
        assert finding.remedy == "it wants an auth string: export PREFECT_API_AUTH_STRING"


def test_a_server_that_takes_connections_and_says_nothing(tmp_path: Path) -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        served(tmp_path, mute.getsockname()[1])
        monkey = pytest.MonkeyPatch()
        monkey.setattr(checks, "ask", lambda api, path, auth: ask(api, path, auth, timeout_s=0.5))
        try:
            (finding,) = wrong(tmp_path)
        finally:
            monkey.undo()
    assert "it takes connections and does not answer" in finding.remedy


@pytest.mark.parametrize(
    ("changed", "what", "remedy"),
    [
        ({"pool": None}, "work pool vidloop", "it is missing: start `vidloop serve` again"),
        ({"pool": {**POOL, "is_paused": True}}, "work pool vidloop is open", "it is paused, nothing starts"),
        ({"queues": [{**QUEUES[0], "is_paused": True}]}, "queue people", "it is paused: resume it in the UI"),
        ({"workers": []}, "0 of 1 workers poll: none", "runs wait for ever"),
        (
            {"workers": [{**WORKERS[0], "status": "OFFLINE"}]},
            "0 of 1 workers poll: none",
            "runs wait for ever",
        ),
        ({"automations": []}, "0 automations watch over runs", "they are missing"),
        (
            {"automations": [AUTOMATIONS[0], {**AUTOMATIONS[1], "enabled": False}]},
            "2 automations watch over runs",
            "switched off: vidloop: a run that does not start is Crashed",
        ),
    ],
)
def test_what_can_be_wrong_behind_a_server_that_answers(
    tmp_path: Path, changed: dict[str, Any], what: str, remedy: str
) -> None:
    (finding,) = looked_at(tmp_path, **changed)
    assert finding.what == what
    assert remedy in finding.remedy


def test_who_holds_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(device_lock.FOLDER, str(tmp_path / "locks"))
    served(tmp_path, 1)
    assert "device standin-9: free" in [finding.what for finding in check_serving(str(tmp_path))]
    path = device_lock.lock_file("standin-9")
    path.write_text(json.dumps({"pid": 77, "what": "generate of round r1", "since": "2026-01-01T00:00:00"}))
    with open(path) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        said = [finding.what for finding in check_serving(str(tmp_path))]
    assert "device standin-9: held by process 77 (generate of round r1, since 2026-01-01T00:00:00)" in said
