"""The examples run as their first lines say, on a tiny model."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import vidloop
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


@pytest.mark.parametrize("how", ["on PYTHONPATH", pytest.param("installed", marks=pytest.mark.slow)])
def test_a_reward_in_a_package_of_its_own_teaches(tiny: Tiny, tmp_path: Path, how: str) -> None:
    folder = EXAMPLES / "brightness-reward"
    if how == "installed":
        source, folder = shutil.copytree(folder, tmp_path / "source"), tmp_path / "site"
        pip = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-index",
            "--no-build-isolation",
        ]
        subprocess.run([*pip, "--target", str(folder), str(source)], check=True, timeout=300)
        assert not (folder / "pyproject.toml").exists()
    recipe = yaml.safe_load(tiny.recipe.read_text())
    recipe |= {"rewards": {"physics": {}, "light": {"kind": "brightness", "skip": 1}}, "feedback": "light"}
    tiny.recipe.write_text(yaml.safe_dump(recipe))
    out = run(
        "play_a_round.py", str(tiny.recipe), str(tiny.store), "finetune.steps=2", cwd=tmp_path, path=(folder,)
    )
    assert "light teaches" in out
    store = vidloop.open_store(tiny.store)
    scores = vidloop.query(store, "SELECT value FROM scores WHERE reward = 'brightness'")["value"].to_pylist()
    assert len(scores) >= 9
    assert all(0.0 < value < 1.0 for value in scores)
