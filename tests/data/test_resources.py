"""Files of packages: found from any folder, and children that start elsewhere find the packages too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from data.resources import INSTALLED, find, folder, python_path


def test_a_package_s_file_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find("rewards/judge/rubrics/general.yaml").is_file()
    assert find("flows/serving/prefect.yaml") == folder("flows.serving") / "prefect.yaml"


def test_what_lies_here_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "rewards" / "judge" / "rubrics" / "general.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    assert find("rewards/judge/rubrics/general.yaml").read_text() == "mine"
    assert find(mine) == mine


@pytest.mark.parametrize("path", ["nowhere/at/all.yaml", "rewards/none.yaml", "Wan-AI/Wan2.1", "x y/z", ""])
def test_what_is_nowhere_comes_back_as_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find(path) == Path(path)


def test_a_package_that_is_not_there_is_named() -> None:
    with pytest.raises(ModuleNotFoundError, match="no package no_such_package is installed"):
        folder("no_such_package")


def test_a_child_in_another_folder_finds_the_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "__init__.py").write_text("raise RuntimeError('not ours')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", os.path.relpath(INSTALLED), "relative"]))
    path = python_path()
    assert path.split(os.pathsep) == [str(INSTALLED), os.path.abspath("relative")]
    done = subprocess.run(
        [sys.executable, "-P", "-c", "import data; print(data.__file__)"], cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert Path(done.stdout.strip()).parents[1] == INSTALLED


def test_what_is_installed_does_not_stand_before_the_standard_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setattr("site.getsitepackages", lambda: [str(INSTALLED)])
    assert python_path() == ""
