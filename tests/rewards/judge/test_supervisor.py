"""The server ends with the run, however the run ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data.errors import UserError
from rewards.judge.server import ManagedServer, command, environment_python
from rewards.judge.settings import JudgeSettings

SUPERVISOR = Path(__file__).resolve().parents[3] / "data/processes.py"
# A server with a child in a session of its own, and one that does not listen to SIGTERM.
SERVER = """
import os, signal, subprocess, sys, time
child = subprocess.Popen(["sleep", "600"], start_new_session=True)
deaf = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"], stdout=subprocess.PIPE)
deaf.stdout.readline()
open(sys.argv[1], "w").write(f"{os.getpid()} {child.pid} {deaf.pid}")
time.sleep(600)
"""
# The supervisor as it is, but for its patience with the deaf one.
SUPERVISE = """
import runpy, sys
supervisor = runpy.run_path(sys.argv[1], run_name="processes")
supervisor["end_all"].__globals__["GRACE_S"] = 1.0
sys.exit(supervisor["supervise"](sys.argv[2], sys.argv[3:]))
"""
RUN = """
import subprocess, sys, time
process = subprocess.Popen(
    [sys.executable, "-P", "-c", sys.argv[5], sys.argv[1], sys.argv[4], sys.executable, "-c", sys.argv[2], sys.argv[3]],
    stdin=subprocess.PIPE, start_new_session=True,
)
open(sys.argv[3] + ".supervisor", "w").write(str(process.pid))
time.sleep(600)
"""


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(happens: object, limit_s: float = 60) -> bool:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if happens():  # type: ignore[operator]
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("ending", ["kill the run", "kill the supervisor", "close the pipe"])
def test_no_process_is_left(ending: str, tmp_path: Path) -> None:
    facts, folder = tmp_path / "pids", tmp_path / "log"
    folder.mkdir()
    run = subprocess.Popen(
        [sys.executable, "-c", RUN, str(SUPERVISOR), SERVER, str(facts), str(folder), SUPERVISE]
    )
    try:
        assert until(lambda: facts.exists() and len(facts.read_text().split()) == 3)
        supervisor = int((tmp_path / "pids.supervisor").read_text())
        server, child, deaf = map(int, facts.read_text().split())
        assert all(map(running, (supervisor, server, child, deaf)))
        match ending:
            case "kill the run":
                run.kill()
            case "kill the supervisor":
                os.kill(supervisor, signal.SIGKILL)
            case "close the pipe":
                run.terminate()
        # Without its supervisor, at least what holds port and memory goes: the server itself.
        gone = [server] if ending == "kill the supervisor" else [supervisor, server, child, deaf]
        assert until(lambda: not any(map(running, gone)))
        assert folder.exists() == (ending == "kill the supervisor")
    finally:
        run.kill()
        run.wait()
        for pid in map(int, facts.read_text().split()) if facts.exists() else ():
            if running(pid):
                os.kill(pid, signal.SIGKILL)


def test_a_server_that_ends_at_once_says_why(tmp_path: Path, tiny_vlm: Path) -> None:
    """An environment without vLLM: this one."""
    environment = Path(sys.executable).parents[1]
    with pytest.raises(UserError, match=r"No module named .?vllm") as raised:
        ManagedServer(JudgeSettings(model=str(tiny_vlm), venv=str(environment), start_timeout_s=60)).wait()
    assert "server.log" in str(raised.value)


def test_no_environment_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="make judge"):
        environment_python(str(tmp_path / "nothing"))


def test_the_key_is_not_on_the_command_line_and_the_server_listens_on_loopback(tiny_vlm: Path) -> None:
    words = command(JudgeSettings(model=str(tiny_vlm)), 1234)
    assert words[words.index("--host") + 1] == "127.0.0.1"
    assert not any("key" in word for word in words)
