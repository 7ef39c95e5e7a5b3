"""The judge's benchmark at a small size: it runs, both sides agree, and its file has what scripts read.

Needs an environment with vLLM, as tests/e2e/test_judge_vllm.py. Nothing here looks at the time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny_round import ROOT

pytestmark = pytest.mark.slow

ENVIRONMENT = Path(os.environ.get("VIDLOOP_JUDGE_VENV", ROOT / ".venv-judge")).absolute()
if not (ENVIRONMENT / "bin" / "python").exists():
    pytest.skip(f"no vLLM at {ENVIRONMENT}: `make judge`, or set VIDLOOP_JUDGE_VENV", allow_module_level=True)


def test_both_clients_get_the_same_answers(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.judge", "--clips", "6", "--repeats", "2"]
    done = subprocess.run(
        [*command, "--environment", str(ENVIRONMENT), "--out", str(tmp_path)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "judge.json").read_text())
    wanted = {"name", "device", "plain", "ours", "ratio", "unit", "shape", "equality", "command", "versions"}
    assert wanted <= found.keys()
    assert found["name"] == "judge"
    assert found["ratio"] == pytest.approx(found["ours"] / found["plain"])
    assert found["shape"]["frames_judged"] >= 8
    assert found["shape"]["questions"] >= 4
    equality = found["equality"]
    assert equality["answers"] == 6 * 4
    assert 0 <= equality["largest_difference"] <= equality["allowed"] == 1e-4
    assert equality["labels_that_differ"] == 0
    # The stored file as it is: the same number of frames, not quite the same ones.
    assert equality["as_timed"]["answers"] == 2 * 6 * 4
    assert found["details"]["order"] == ["ours", "plain", "plain", "ours"]
    assert "largest_difference" in done.stdout
