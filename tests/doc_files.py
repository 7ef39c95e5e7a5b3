"""Whole files out of a page of the documentation, put where the page says, in a copy of the tree.

    ```python
    # rewards/brightness.py
    ...
    ```

A fenced block is a whole file if its first line is a comment that holds nothing but a path. What such files
do is then tried in a process of its own, which imports the copy and not the checkout.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.doc_blocks import blocks_of

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("data", "models", "rewards", "tasks", "flows", "miniature", "studies", "recipes", "vidloop")


def files_of(page: str) -> dict[str, str]:
    """The whole files of a page such as "docs/add-a-reward.md": text by path, in the page's order."""
    return {block.file: block.text for block in blocks_of(ROOT / page, ROOT) if block.file}


@dataclass(frozen=True)
class Copy:
    """A copy of the tree with a page's files in it.

    Attributes:
        folder: its root.
        files: paths of the page's files, in the page's order.
    """

    folder: Path
    files: tuple[str, ...]

    def run(self, *arguments: str | Path, limit_s: float = 600) -> str:
        """What `python ARGUMENTS...` prints in the copy; AssertionError with its words if it fails."""
        environment = {**os.environ, "PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=limit_s,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    def vidloop(self, *arguments: str | Path, limit_s: float = 600) -> str:
        """What `vidloop ARGUMENTS...` prints in the copy."""
        return self.run("-m", "flows", *arguments, limit_s=limit_s)


def copy_with(page: str, folder: Path, only: Sequence[str] = ()) -> Copy:
    """A copy of the tree in `folder` with the page's files (or `only` these), which overwrite what is there."""
    for name in PACKAGES:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, folder / name, copy_function=_copy, ignore=shutil.ignore_patterns("__pycache__")
            )
    shutil.copy(ROOT / "pyproject.toml", folder)
    files = {path: text for path, text in files_of(page).items() if not only or path in only}
    for path, text in files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)  # it may be a link to the checkout's own
        place.write_text(text, "utf-8")
    return Copy(folder, tuple(files))


def _copy(source: str, target: str) -> None:
    """Code as a copy, so that a module's place is the copy's; weights and other data as links."""
    if source.endswith(".py"):
        shutil.copyfile(source, target)
    else:
        os.symlink(os.path.abspath(source), target)
