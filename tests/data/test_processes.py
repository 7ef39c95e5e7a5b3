"""Processes end with the one that started them, however it ended, and logs say why they ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from data import processes
from tests.tiny_round import ROOT

# A parent that starts a child, tells its pid and waits to be killed.
POPEN = """
import subprocess, sys, time
child = "import os, time; from data import processes; processes.on_parent_exit(lambda _: os._exit(1)); time.sleep(600)"
process = subprocess.Popen([sys.executable, "-c", child], stdin=subprocess.PIPE)
print(process.pid, flush=True)
time.sleep(600)
"""
SIGNALLED = """
import subprocess, time
from data import processes
process = subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL, preexec_fn=processes.die_with_parent)
print(process.pid, flush=True)
time.sleep(600)
"""


def gone(pid: int, limit_s: float = 30) -> bool:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("program", [POPEN, SIGNALLED], ids=["reads a pipe", "is signalled"])
def test_a_child_ends_after_sigkill_of_its_parent(program: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert not gone(child, 0.5)
    parent.kill()
    parent.wait()
    assert gone(child)


def test_waiting_says_whether_a_server_ended_or_is_late() -> None:
    with subprocess.Popen(["sleep", "600"]) as alive, subprocess.Popen(["true"]) as ended:
        ended.wait()
        with pytest.raises(ChildProcessError, match="ended before it answered"):
            processes.wait_until_ready(ended, lambda: True, 10)
        with pytest.raises(TimeoutError, match="did not answer within 0 s"):
            processes.wait_until_ready(alive, lambda: False, 0.2)
        answers = iter([False, False, True])
        assert processes.wait_until_ready(alive, lambda: next(answers), 10)
        stop = threading.Event()
        stop.set()
        assert not processes.wait_until_ready(alive, lambda: True, 10, stop)
        alive.kill()


def test_stopping_a_server_that_ignores_its_pipe_kills_it(tmp_path: Path) -> None:
    server = processes.ServerProcess(["sleep", "600"], tmp_path / "log", os.environ)
    assert server.alive
    server.stop(timeout_s=0.2)
    assert not server.alive
    server.stop()


def test_a_server_hears_the_word(tmp_path: Path) -> None:
    server = processes.ServerProcess(["cat"], tmp_path / "log", os.environ)
    server.stop(word=b"keep")
    assert (tmp_path / "log").read_bytes() == b"keep"


def test_the_line_that_says_most_is_the_last_error(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("begin\nValueError: the first\nOSError: the last\nbye\n")
    assert processes.last_error(log) == "OSError: the last"
    log.write_text("ValueError: why\nsee https://example.org/value_error\n")
    assert processes.last_error(log) == "ValueError: why"
    log.write_text("one\ntwo\n")
    assert processes.last_error(log) == "two"
    assert processes.tail(log, 4) == "two"
    log.write_text("")
    assert processes.last_error(log) == "it printed nothing"
    assert "cannot be read" in processes.last_error(tmp_path / "nothing")


def test_what_ignores_sigterm_gets_sigkill() -> None:
    deaf = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(600)",
        ],
        stdout=subprocess.PIPE,
    )
    assert deaf.stdout is not None
    deaf.stdout.readline()
    processes.end(lambda: [deaf.pid] if deaf.poll() is None else [], grace_s=0.2)
    assert deaf.wait() == -signal.SIGKILL
    deaf.stdout.close()


def test_the_module_runs_by_its_path_outside_all_packages(tmp_path: Path) -> None:
    """As the judge's supervisor, in a folder where none of our packages can be imported."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [sys.executable, "-I", "-S", processes.__file__, str(tmp_path), "true"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, stdin=subprocess.PIPE, capture_output=True)
    assert done.returncode == 0, done.stderr
