"""The judge's server starts beside generation and is picked up by scoring; however generation ends, it ends too.

Needs an environment with vLLM, as tests/e2e/test_judge_vllm.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.rewards.judge.conftest import RUBRIC
from tests.tiny_round import ROOT, Tiny, cached, summaries
from tests.tiny_vlm import tiny_vlm  # noqa: F401  (a fixture)

pytestmark = pytest.mark.slow

ENVIRONMENT = Path(os.environ.get("VIDLOOP_JUDGE_VENV", ROOT / ".venv-judge")).absolute()
if not (ENVIRONMENT / "bin" / "python").exists():
    pytest.skip(f"no vLLM at {ENVIRONMENT}: `make judge`, or set VIDLOOP_JUDGE_VENV", allow_module_level=True)


@pytest.fixture
def judged(tiny: Tiny, tiny_vlm: Path) -> list[str]:
    rubric = tiny.folder / "rubric.yaml"
    rubric.write_text(yaml.safe_dump(RUBRIC))
    changed = {
        "rewards": "[sharpness,judge]",
        "judge.backend": "vllm",
        "judge.venv": str(ENVIRONMENT),
        "judge.model": str(tiny_vlm),
        "judge.rubric": str(rubric),
    }
    return [word for key, value in changed.items() for word in ("--set", f"{key}={value}")]


@pytest.fixture
def started(tiny: Tiny, judged: list[str]) -> Callable[..., subprocess.Popen[bytes]]:
    def start(*more: str, **environment: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "flows", "round", "--plain", *tiny.args(*judged, *more)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            # A shell that runs the tests in the background has them ignore Ctrl-C; a person's does not.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    return start


def servers(model: Path) -> list[int]:
    """Processes that serve this model, or watch over one that does."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"vllm.entrypoints" in command and str(model).encode() in command:
                found.append(int(entry.name))
    return found


def made(tiny: Tiny, stage: str) -> int:
    return len(list((tiny.store / "manifests").glob(f"{stage}/*.json")))


def until(happens: Callable[[], object], limit_s: float = 120) -> None:
    deadline = time.monotonic() + limit_s
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_it_starts_with_generation_serves_scoring_and_ends(
    tiny: Tiny, tiny_vlm: Path, started: Callable[..., subprocess.Popen[bytes]]
) -> None:
    run = started()
    try:
        until(lambda: servers(tiny_vlm) or made(tiny, "score"))
        assert made(tiny, "score") == 0, "nothing was to be scored yet"
        assert run.wait(400) == 0
    finally:
        run.kill()
    until(lambda: not servers(tiny_vlm), 60)
    assert cached(summaries(tiny.store)[-1])["score"] == (0, 3)
    assert summaries(tiny.store)[-1]["stages"]["score"]["failed"] == 0


@pytest.mark.parametrize("ending", ["failure", "Ctrl-C", "SIGTERM", "kill -9"])
def test_it_ends_with_a_run_that_ends_while_it_generates(
    ending: str, tiny: Tiny, tiny_vlm: Path, started: Callable[..., subprocess.Popen[bytes]]
) -> None:
    # What fails, fails after the rest of the stage is done; the others are not to get there.
    many = f"generate.clips_per_prompt={40 if ending == 'failure' else 400}"
    planted = {"VIDLOOP_FAILPOINT": "store.before_manifest:20", "VIDLOOP_FAILPOINT_ACTION": "raise"}
    run = started("--set", many, **(planted if ending == "failure" else {}))
    try:
        until(lambda: len(servers(tiny_vlm)) >= 2 and made(tiny, "generate"))
        match ending:
            case "Ctrl-C":
                run.send_signal(signal.SIGINT)
            case "SIGTERM":
                run.terminate()
            case "kill -9":
                run.kill()
        wanted = {"failure": 3, "kill -9": -signal.SIGKILL}.get(ending, 130)
        assert run.wait(120) == wanted
    finally:
        run.kill()
    until(lambda: not servers(tiny_vlm), 60)
    assert made(tiny, "score") == 0
