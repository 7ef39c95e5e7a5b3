from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from tasks.worker_pool import DEVICES, environment
from tests.data.test_processes import gone
from tests.tiny_round import ROOT

POOL = """
import os, pathlib, sys, threading, time
from tasks.worker_pool import WorkerPool
class Sleep:
    def run(self):
        pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
        time.sleep(600)
if __name__ == "__main__":
    WorkerPool([None], 1, 1).run(Sleep())
"""


def test_threads_do_not_give_each_others_environment() -> None:
    """Two that start a child each, at once: as two GPUs' processes are started."""
    meeting, seen = threading.Barrier(2, timeout=30), {}
    before = os.environ.get(DEVICES)

    def start(device: str) -> None:
        meeting.wait()
        for _ in range(2000):
            with environment({DEVICES: device}):
                seen.setdefault(device, set()).add(os.environ[DEVICES])

    threads = [threading.Thread(target=start, args=(device,)) for device in ("0", "1")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {"0": {"0"}, "1": {"1"}}
    assert os.environ.get(DEVICES) == before


def test_a_worker_at_work_ends_after_sigkill_of_its_parent(tmp_path: Path) -> None:
    script, told = tmp_path / "program.py", tmp_path / "pid"
    script.write_text(POOL)
    parent = subprocess.Popen(
        [sys.executable, str(script), str(told)], env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    deadline = time.monotonic() + 60
    while not (told.exists() and told.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    worker = int(told.read_text())
    parent.kill()
    parent.wait()
    assert gone(worker)
