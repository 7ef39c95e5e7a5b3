"""The sides of a training comparison, each written to a file of its own as soon as it is measured.

A comparison on a lent machine may be ended before it is done. What was measured until then lies in
`<results>/<name>.sides/<side>.json`, and the same command with `--resume` measures only what is missing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.result import command_line
from benchmarks.training_parts import Timed


class Sides:
    """The files of one comparison.

    Args:
        folder: where they lie; made if missing.
        question: whatever decides the figures, as JSON values: a side of another question is never taken up.
        resume: take up sides that are there.

    Attributes:
        resumed: names of the sides that were taken up, and not measured.
    """

    def __init__(self, folder: Path, question: Mapping[str, Any], *, resume: bool) -> None:
        self._folder, self._resume = folder, resume
        self._question = json.loads(json.dumps(question))  # as it reads back: tuples become lists
        self.resumed: list[str] = []

    def take(self, side: str, steps: int, measure: Callable[[], Timed]) -> Timed:
        """A side from its file, if that has so many steps, else from `measure`, then written at once."""
        held = self._held(side) if self._resume else None
        if held is not None and len(held.losses) >= steps:
            self.resumed.append(side)
            return held
        timed = measure()
        self.keep(side, timed)
        return timed

    def keep(self, side: str, timed: Timed) -> None:
        """Write what was measured, in one step."""
        self._folder.mkdir(parents=True, exist_ok=True)
        content = {
            "side": side, "question": self._question, "command": command_line(), "seconds": timed.seconds,
            "losses": timed.losses, "peak_bytes": timed.peak_bytes,
        }  # fmt: skip
        path = self._path(side)
        draft = path.with_suffix(".tmp")
        draft.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
        os.replace(draft, path)

    def _held(self, side: str) -> Timed | None:
        if not self._path(side).is_file():
            return None
        content = json.loads(self._path(side).read_text())
        if content["question"] != self._question:
            return None
        return Timed(content["seconds"], content["losses"], content["peak_bytes"])

    def _path(self, side: str) -> Path:
        return self._folder / f"{side.replace(', ', '-').replace(' ', '-')}.json"
