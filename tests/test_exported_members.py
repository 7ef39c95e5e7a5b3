"""What each package promises: its names are there, none is left out, and `import vidloop` is light."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
import tomllib
import types

import pytest

import vidloop
from tests.tiny_round import ROOT

PACKAGES = ("vidloop", "flows", "tasks", "models", "rewards", "data", "miniature", "studies")


def test_vidloop_names_all_that_it_exports() -> None:
    public = {
        name
        for name, value in vars(vidloop).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert set(vidloop.__all__) - {"__version__"} == public
    assert len(set(vidloop.__all__)) == len(vidloop.__all__)


@pytest.mark.parametrize("name", [name for name in vidloop.__all__ if name != "__version__"])
def test_what_is_promised_says_what_it_is(name: str) -> None:
    exported = getattr(vidloop, name)
    assert inspect.getdoc(exported)
    if inspect.isfunction(exported):
        assert "return" in inspect.get_annotations(exported)


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_is_typed_and_exports_what_it_names(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__doc__
    assert (ROOT / package / "py.typed").is_file()
    for name in module.__all__:
        if not hasattr(module, name):
            importlib.import_module(f"{package}.{name}")


def test_importing_vidloop_loads_nothing_heavy() -> None:
    heavy = (
        "torch",
        "prefect",
        "duckdb",
        "av",
        "cv2",
        "matplotlib",
        "diffusers",
        "transformers",
        "miniature",
        "studies",
    )
    code = f"import sys, vidloop; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_version_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert vidloop.__version__ == project["version"]
    log = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert f"## {vidloop.__version__} - 20" in log
    assert f"image: vidloop:{vidloop.__version__}\n" in (ROOT / "docker-compose.yml").read_text("utf-8")
