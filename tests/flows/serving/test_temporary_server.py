from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.tiny_round import ROOT

CODE = """
import os, sys, time
from pathlib import Path
from flows.serving.temporary_server import TemporaryServer
server = TemporaryServer(Path(sys.argv[1]))
server.wait()
print(server.url, server._process.pid, flush=True)
from prefect.settings import get_current_settings
assert not get_current_settings().server.ui.enabled, "nobody can look at it, and so no pages are made"
time.sleep(600)
"""


def gone(pid: int) -> bool:
    for _ in range(400):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
def test_no_server_is_left_behind_even_after_a_kill(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_HOME": str(tmp_path / "prefect")}
    run = subprocess.Popen(
        [sys.executable, "-c", CODE, str(tmp_path / "server.log")],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None
    url, pid = run.stdout.readline().split()
    with urllib.request.urlopen(f"{url}/health", timeout=30) as answer:
        assert answer.read() == b"true"
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert gone(int(pid))


def test_a_server_that_does_not_start_says_where_to_look(tmp_path: Path) -> None:
    code = CODE.replace("server = ", "sys.executable = '/bin/false'; server = ")
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "server.log")], env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert "ServiceError: Prefect's temporary server did not start, see" in done.stderr
    assert "--plain" in done.stderr
