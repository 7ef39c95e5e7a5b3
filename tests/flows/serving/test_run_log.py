from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from flows.serving import run_log
from tests.tiny_round import ROOT

RUN = """
import os, sys, time
from prefect.utilities.importtools import import_object
print("of the worker", flush=True)
import_object(sys.argv[1])()
print("of the run", flush=True)
print("an error of the run", file=sys.stderr, flush=True)
os.execv(sys.executable, [sys.executable, "-c", "print('after exec')"])
"""


def spoken(log: Path | None) -> tuple[int, str]:
    """A process whose output nobody reads after its first line; its exit code, and that line."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop(run_log.LOG, None)
    if log is not None:
        environment[run_log.LOG] = str(log)
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, run_log.STEP], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    first = process.stdout.readline()
    process.stdout.close()  # as the kernel does when the worker is killed
    return process.wait(120), first


def test_a_run_writes_where_its_worker_does_and_needs_no_worker_for_it(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    log.write_text("before\n")
    assert spoken(log) == (0, "of the worker\n")
    assert log.read_text() == "before\nof the run\nan error of the run\nafter exec\n"


def test_elsewhere_nothing_changes() -> None:
    code, first = spoken(None)
    assert (code != 0, first) == (True, "of the worker\n")
