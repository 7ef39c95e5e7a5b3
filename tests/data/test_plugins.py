"""Plug-ins: found where they are installed and beside the path, once each, and refused in words."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from data.errors import ConfigError
from data.plugins import GROUPS, plugins

GROUP = "vidloop.rewards"


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Put a project with entry points beside a folder of the path."""

    def put(name: str, entries: str, first: bool = False, group: str = GROUP) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "pyproject.toml").write_text(
            f'[project]\nname = "{name}"\n\n[project.entry-points."{group}"]\n{entries}\n'
        )
        monkeypatch.setattr(sys, "path", [str(folder), *sys.path] if first else [*sys.path, str(folder)])
        return folder

    return put


def install(folder: Path, name: str, entries: str) -> None:
    """What pip leaves of a distribution."""
    info = folder / f"{name.replace('-', '_')}-1.5.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{entries}\n")


def test_what_lies_beside_the_path_and_what_is_installed_have_the_same_rights(beside, tmp_path, monkeypatch):
    folder = beside("lamp", 'dim = "lamp:DIM"')
    install(tmp_path / "site", "torch-lamp", "bright = torch_lamp:BRIGHT")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "site")])
    found = plugins(GROUP)
    assert (found["dim"].target, found["dim"].source) == ("lamp:DIM", str(folder))
    assert (found["bright"].target, found["bright"].source) == ("torch_lamp:BRIGHT", "torch-lamp 1.5")
    assert "dim" not in plugins("vidloop.families")


def test_a_distribution_that_is_also_installed_counts_once_as_python_imports_it(
    beside, tmp_path, monkeypatch
):
    install(tmp_path / "site", "my_lamp", "dim = lamp.old:DIM")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "site")])
    beside("My-Lamp", 'dim = "lamp.new:DIM"', first=True)
    assert plugins(GROUP)["dim"].target == "lamp.new:DIM"


def test_two_packages_with_one_name_are_refused(beside):
    beside("lamp", 'dim = "lamp:DIM"')
    beside("torch-lamp", 'dim = "torch_lamp:DIM"')
    with pytest.raises(
        ConfigError, match=r"two plug-ins of vidloop\.rewards are called 'dim'.*Uninstall one"
    ):
        plugins(GROUP)


def test_one_that_cannot_be_imported_says_which_and_why(beside):
    beside("lamp", 'dim = "no_such_lamp:DIM"')
    with pytest.raises(ConfigError, match=r"plug-in 'dim' of .*lamp \(no_such_lamp:DIM\) cannot be loaded"):
        plugins(GROUP)["dim"].load()


@pytest.mark.parametrize("text", ["[project", "\xff\xfe", 'name = "no project"'])
def test_somebody_elses_pyproject_is_passed_over(tmp_path, monkeypatch, text):
    (tmp_path / "pyproject.toml").write_text(text, encoding="latin-1")
    before = {group: plugins(group) for group in GROUPS}
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert {group: plugins(group) for group in GROUPS} == before
