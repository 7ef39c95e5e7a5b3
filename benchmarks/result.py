"""What a benchmark leaves: a table on the terminal, and `results/<name>.json` with the same keys for all."""

import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Result:
    """One comparison. Every figure in it was measured in the one run that `command` names."""

    name: str
    """Of the file: `generation`, `generation-fast`, `training-pair`, `scoring`, `judge`, `orchestration`."""
    device: str
    plain: float
    """The plain way's figure, in `unit`."""
    ours: float
    ratio: float
    """How many times better ours is, whatever the unit: above 1 is better."""
    unit: str
    shape: Mapping[str, Any]
    """What was measured: sizes, counts, settings of both sides."""
    equality: Mapping[str, Any]
    """How far the two sides' results lie apart, and what was allowed."""
    command: str
    versions: Mapping[str, str]
    details: Mapping[str, Any] = field(default_factory=dict)
    """Repeats, memory, where the time goes: whatever the table shows beyond the two figures."""
    memory_ratio: float | None = None
    """Ours / plain, of the peak; None where memory was not compared."""

    def as_json(self) -> dict[str, Any]:
        """The file's content; `memory_ratio` stands in it only where it was measured."""
        content = asdict(self)
        if self.memory_ratio is None:
            del content["memory_ratio"]
        return content


def write(result: Result, folder: Path = RESULTS) -> Path:
    """Write `<folder>/<name>.json` in one step, so that a killed benchmark leaves the last whole result."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result.name}.json"
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(result.as_json(), indent=1, allow_nan=False) + "\n")
    os.replace(draft, path)
    return path


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; the first column is what was measured, the others are figures."""
    table = Table(title=title, title_justify="left")
    for place, name in enumerate(header):
        table.add_column(name, justify="left" if place == 0 else "right")
    for row in rows:
        table.add_row(*row)
    Console(width=120).print(table)


def command_line() -> str:
    """The command that started this process, as one would type it from the checkout."""
    spec = sys.modules["__main__"].__spec__
    if spec is None:
        return shlex.join(["python", *sys.argv])
    return shlex.join(["python", "-m", spec.name.removesuffix(".__main__"), *sys.argv[1:]])


def versions(*packages: str) -> dict[str, str]:
    """Releases of Python and of the packages named, as installed.

    Raises:
        importlib.metadata.PackageNotFoundError: a package is not installed.
    """
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}}


def device_name() -> str:
    """The GPU's name, or the processor's with the number of cores this process may use."""
    import torch

    if torch.cuda.is_available():
        name, count = str(torch.cuda.get_device_name(0)), torch.cuda.device_count()
        return f"{count} x {name}" if count > 1 else name
    model = "CPU"
    info = Path("/proc/cpuinfo")
    if info.exists():
        named = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = named[0].split(":", 1)[1].strip() if named else model
    return f"{model}, {len(os.sched_getaffinity(0))} cores"
