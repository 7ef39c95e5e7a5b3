"""Interruptions and a full disk: a clean end with the right exit code, nothing lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from tests.tiny_round import ROOT, Ended, Tiny, cached, play, summaries


def interrupt(tiny: Tiny, number: int, *how: str) -> Ended:
    """Send a signal to a round as soon as its first shard is committed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "flows", "round", *how, *tiny.args("--set", "generate.clips_per_prompt=400")],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A shell that runs the tests in the background has them ignore Ctrl-C; a user at a terminal does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    for _ in range(3000):
        if any((tiny.store / "manifests").glob("generate/*.json")):
            break
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    return Ended(process.returncode, out, err)


def check(tiny: Tiny, ended: Ended) -> None:
    assert ended.code == 130, ended.err
    assert "interrupted; everything that was finished is kept" in ended.err
    assert "Traceback" not in ended.err
    assert summaries(tiny.store)[-1]["verdict"].startswith("stage generate did not finish")
    manifests = len(list((tiny.store / "manifests" / "generate").iterdir()))
    assert 1 <= manifests < 300


def test_sigterm(tiny: Tiny) -> None:
    check(tiny, interrupt(tiny, signal.SIGTERM, "--plain"))


@pytest.mark.slow
@pytest.mark.parametrize("how", [[], ["--plain"], ["--plain", "--set", "workers=2"]])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals(tiny: Tiny, how: list[str], number: int) -> None:
    check(tiny, interrupt(tiny, number, *how))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("action", "code", "said"),
    [("enospc", 2, "disk full"), ("erofs", 2, "cannot write"), ("raise", 3, "failpoint store.after_part:3")],
)
def test_a_write_that_fails(
    tiny: Tiny, vidloop: Callable[..., Ended], action: str, code: int, said: str
) -> None:
    point = {"VIDLOOP_FAILPOINT": "store.mid_write:14", "VIDLOOP_FAILPOINT_ACTION": action}
    if action == "raise":
        point["VIDLOOP_FAILPOINT"] = "store.after_part:3"
    ended = vidloop("round", "--plain", *tiny.args(), **point)
    assert ended.code == code
    assert said in ended.err
    assert "Traceback" not in ended.err
    kept = len(list((tiny.store / "manifests").glob("*/*.json")))
    assert kept >= 1
    summary = play(tiny)
    assert sum(found for found, _ in cached(summary).values()) >= 1
