from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data import device_lock
from data.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import subprocess, sys, time
from data import device_lock
device_lock.hold("standin-0", "generate of round R", lambda line: print(line, flush=True))
if len(sys.argv) > 1:
    subprocess.Popen(["sleep", sys.argv[1]], pass_fds=device_lock.descriptors())
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(device_lock.FOLDER, str(tmp_path / "locks"))
    return tmp_path / "locks"


def process(*arguments: str) -> subprocess.Popen[str]:
    started = subprocess.Popen(
        [sys.executable, "-c", HOLD, *arguments], env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return started


def says(started: subprocess.Popen[str]) -> str:
    assert started.stdout is not None
    return started.stdout.readline().strip()


def test_the_second_waits_and_says_for_whom_until_the_first_is_killed() -> None:
    assert device_lock.holder("standin-0") is None
    first = process()
    assert says(first) == "held"
    held = device_lock.holder("standin-0")
    assert held is not None
    assert held.startswith(f"process {first.pid} (generate of round R, since 20")
    second = process()
    assert says(second) == f"waiting for device standin-0, which {held} holds"
    first.send_signal(signal.SIGKILL)
    assert says(second).startswith("device standin-0 is free after ")
    assert says(second) == "held"
    second.kill()
    for started in (first, second):
        started.wait()
    assert device_lock.holder("standin-0") is None


def test_a_child_that_inherits_it_holds_it_for_as_long_as_it_lives() -> None:
    first = process("2")
    assert says(first) == "held"
    begun = time.monotonic()
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert device_lock.holder("standin-0") is not None
    while device_lock.holder("standin-0"):
        assert time.monotonic() < begun + 60
        time.sleep(0.05)


def test_another_device_is_nobodys_business() -> None:
    first = process()
    assert says(first) == "held"
    assert device_lock.holder("standin-1") is None
    first.kill()
    first.wait()


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(device_lock.FOLDER, str(tmp_path / "file" / "locks"))
    with pytest.raises(UserError, match="VIDLOOP_LOCKS names another folder"):
        device_lock.lock_file("cpu")
