"""The examples run as their first lines say, on a tiny model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.tiny_round import ROOT, Tiny, summaries

EXAMPLES = ROOT / "examples"


def run(script: str, *arguments: str, cwd: Path, path: tuple[Path, ...] = ()) -> str:
    """Run an example in a process of its own, in another folder; what it printed."""
    places = os.pathsep.join(map(str, (ROOT, *path)))
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script), *arguments], cwd=cwd, env={**os.environ, "PYTHONPATH": places},
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_round_from_python_and_then_its_store(tiny: Tiny, tmp_path: Path) -> None:
    out = run("play_a_round.py", str(tiny.recipe), str(tiny.store), "finetune.steps=2", cwd=tmp_path)
    (summary,) = summaries(tiny.store)
    assert summary["verdict"] in out
    assert summary["recipe"]["finetune"]["steps"] == 2
    (report,) = [line.removeprefix("Report: ") for line in out.splitlines() if line.startswith("Report: ")]
    assert Path(report).is_file()

    said = run("read_a_store.py", str(tiny.store), cwd=tmp_path)
    assert summary["round"] in said
    assert " 0 of them failed" in said
    (clip,) = [
        line.removeprefix("the first clip: ") for line in said.splitlines() if "the first clip" in line
    ]
    assert Path(clip).is_file()
