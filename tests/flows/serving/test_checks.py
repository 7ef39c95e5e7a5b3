from __future__ import annotations

import socket
import sqlite3
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from flows.serving import checks
from flows.serving.checks import Finding, check_pins, check_serving
from flows.serving.place import Place


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
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def served(folder: Path, port: int) -> Place:
    place = Place(str(folder), "127.0.0.1", port, str(folder / "store"), ("standin-9",))
    place.auth()
    place.save()
    return place


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
