"""The wheel: what lies in it, and that it runs in an empty folder of an environment that has never seen the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.tiny_round import HELDOUT, ROOT, TRAIN, summaries, write_prompts

PACKAGES = {"vidloop", "flows", "tasks", "models", "rewards", "data", "miniature", "studies", "recipes"}
LIBRARIES = sysconfig.get_path("purelib")
SMALL = (
    "generate.prompts=train.jsonl", "evaluate.prompts=heldout.jsonl", "evaluate.clips=4", "evaluate.also=[]",
    "generate.clips_per_prompt=4", "rewards=[physics, judge]", "judge.backend=local", "finetune.steps=2",
    "finetune.warmup=0", "finetune.batch_size=4",
)  # fmt: skip


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    (path,) = out.glob("*.whl")
    return path


def test_every_file_of_the_packages_lies_in_the_wheel_and_nothing_else(wheel: Path) -> None:
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    own = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert inside == own


@dataclass(frozen=True)
class Installed:
    """An environment, and an empty folder to work in."""

    python: Path
    folder: Path
    path: str = ""

    def run(self, *arguments: str, limit_s: float = 900) -> str:
        """Run Python with these arguments; what it printed. The checkout is nowhere on its path."""
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "VIDLOOP_", "PREFECT_", "VIRTUAL_ENV"))
        }
        # In a session's home of its own: Prefect keeps things there.
        clean |= {"PREFECT_HOME": str(self.folder.parent / "prefect"), "DO_NOT_TRACK": "1"}
        clean |= {"PYTHONPATH": self.path} if self.path else {}
        done = subprocess.run(
            [str(self.python), "-P", *arguments], cwd=self.folder, env=clean, capture_output=True, text=True, timeout=limit_s,
        )  # fmt: skip
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout


def environment(folder: Path) -> Path:
    """A new environment that sees the libraries of this one, and of vidloop nothing: a .pth file inside a folder that
    a .pth file names is not read, so an editable installation stays out."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=120)
    python = folder / "bin" / "python"
    packages = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], capture_output=True, text=True, check=True
    )  # fmt: skip
    (Path(packages.stdout.strip()) / "libraries.pth").write_text(f"{LIBRARIES}\n")
    return python


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    root = tmp_path_factory.mktemp("installed")
    python = environment(root / "environment")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
    ]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True, timeout=300)
    (root / "empty").mkdir()
    return Installed(python, root / "empty")


@pytest.fixture(scope="module", params=["wheel", "checkout"])
def on_the_path(
    request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Installed:
    """Nothing is installed: PYTHONPATH names the unpacked wheel, or the checkout."""
    root = tmp_path_factory.mktemp("unpacked")
    if request.param == "wheel":
        zipfile.ZipFile(wheel).extractall(root / "unpacked")
    (root / "empty").mkdir()
    path = root / "unpacked" if request.param == "wheel" else ROOT
    return Installed(environment(root / "environment"), root / "empty", str(path))


WHERE = "import json, importlib; print(json.dumps({p: importlib.import_module(p).__file__ for p in %r}))"


@pytest.mark.slow
def test_the_installed_wheel_plays_a_whole_round_in_an_empty_folder(installed: Installed) -> None:
    places = json.loads(installed.run("-c", WHERE % sorted(PACKAGES)))
    assert all(place.startswith(str(installed.python.parents[1])) for place in places.values())
    looked = installed.run("-m", "flows", "doctor")
    assert "ok    recipes/" in looked
    assert "MISS" not in looked
    assert "generate  0 cached, 60 to run" in installed.run("-m", "flows", "plan")

    write_prompts(installed.folder / "train.jsonl", TRAIN)
    write_prompts(installed.folder / "heldout.jsonl", HELDOUT)
    command = installed.python.parent / "vidloop"
    assert command.exists()
    installed.run(str(command), "round", *[word for one in SMALL for word in ("--set", one)])
    (summary,) = summaries(installed.folder / "store")
    assert all(stage["failed"] == 0 for stage in summary["stages"].values())
    assert installed.run("-m", "flows", "query", "SELECT count(*) AS n FROM clips", "--format", "json")
    page = Path(installed.run("-m", "flows", "report").strip().splitlines()[-1])
    assert (installed.folder / page).read_text("utf-8").startswith("<!doctype html>")
    assert {path.name for path in installed.folder.iterdir()} == {"store", "train.jsonl", "heldout.jsonl"}


@pytest.mark.slow
def test_plug_ins_and_files_are_found_by_pythonpath_alone(on_the_path: Installed) -> None:
    folder = on_the_path.folder
    # What stands in the folder where somebody works is not our package.
    for name in ("data", "models"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "__init__.py").write_text("raise RuntimeError('not ours')\n")
    found = "import json, data.plugins as p; print(json.dumps({g: list(p.plugins(g)) for g in p.GROUPS}))"
    assert json.loads(on_the_path.run("-c", found))["vidloop.commands"] == ["study"]
    assert "MISS" not in on_the_path.run("-m", "flows", "doctor")
    assert "generate  0 cached, 60 to run" in on_the_path.run("-m", "flows", "plan")
    assert "study" in on_the_path.run("-m", "flows", "--help")
