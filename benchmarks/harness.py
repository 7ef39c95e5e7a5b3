"""What every benchmark is made of: options, clocks, the device's memory, and the result as one JSON file.

A benchmark measures a plain way and ours over the same work, says how far their results lie apart, prints a
table, and leaves `results/<name>.json`.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from importlib import metadata
from math import prod
from pathlib import Path
from statistics import fmean
from typing import Any, Self

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

RESULTS = Path(__file__).parent / "results"
# Longer lists stand in the file alone.
_SHOWN = 4


@dataclass(frozen=True)
class Result:
    """One comparison. Every figure in it was measured in this process, the one run that its command names."""

    name: str
    """Of the file, such as `generation`."""
    plain: float
    """The plain way's figure, in `unit`."""
    ours: float
    unit: str
    _: KW_ONLY
    more_is_better: bool
    """Of the figures: clips a minute, say, and not seconds."""
    libraries: Sequence[str]
    """Packages whose releases decide the figures."""
    shape: Mapping[str, Any]
    """What was measured: sizes, counts, settings of both sides."""
    equality: Mapping[str, Any]
    """How far the two sides' results lie apart, and what was allowed."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Repeats, memory, where the time goes: whatever the table shows beyond the two figures."""
    served: Mapping[str, str] = field(default_factory=dict)
    """Releases of what answered from an environment of its own."""
    memory_ratio: float | None = None
    """Ours / plain, of the peak; None where memory was not compared."""

    @property
    def ratio(self) -> float:
        """How many times better ours is, whatever the unit: above 1 is better."""
        better, worse = (self.ours, self.plain) if self.more_is_better else (self.plain, self.ours)
        return better / worse if worse else 0.0

    def as_json(self) -> dict[str, Any]:
        """The file's content; `memory_ratio` stands in it only where it was measured."""
        content = {
            "name": self.name, "device": device_name(), "plain": self.plain, "ours": self.ours,
            "ratio": self.ratio, "unit": self.unit, "shape": self.shape, "equality": self.equality,
            "command": command_line(), "versions": {**versions(*self.libraries), **self.served},
            "details": self.details,
        }  # fmt: skip
        return content if self.memory_ratio is None else {**content, "memory_ratio": self.memory_ratio}


def write(result: Result, folder: Path = RESULTS) -> Path:
    """Write `<folder>/<name>.json`, and print what stands in it."""
    path = write_json(folder / f"{result.name}.json", result.as_json())
    show(result)
    print(f"written: {path}", flush=True)
    return path


def write_json(path: Path, content: Mapping[str, Any]) -> Path:
    """Write a file in one step, so that a benchmark that is killed leaves the last whole one.

    Raises:
        ValueError: a figure is no number; nothing is written.
    """
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    draft.write_text(text)
    os.replace(draft, path)
    return path


def show(result: Result) -> None:
    """Print the two figures, and below them how equal both sides are and what else was measured."""
    console = Console(width=120)
    console.print(f"{result.name}, {device_name()}: {result.ratio:.2f} times as good", style="bold")
    console.print(f"    {result.unit}: plain {result.plain:.4g}, ours {result.ours:.4g}")
    for title, facts in (("equality", result.equality), ("details", result.details)):
        table = Table(title=title, title_justify="left", show_header=False)
        for name, value in _flat(facts):
            table.add_row(name, value)
        console.print(table)


def _flat(facts: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """A line for each fact, with the names above it; long lists by their length alone."""
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}: ")
        elif isinstance(value, Sequence) and not isinstance(value, str) and len(value) > _SHOWN:
            yield above + name, f"{len(value)} values"
        else:
            yield above + name, f"{value:.4g}" if isinstance(value, float) else str(value)


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
    if torch.cuda.is_available():
        name, count = str(torch.cuda.get_device_name(0)), torch.cuda.device_count()
        return f"{count} x {name}" if count > 1 else name
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{named[0] if named else 'CPU'}, {len(os.sched_getaffinity(0))} cores"


def options(doc: str | None, *, device: bool = True) -> argparse.ArgumentParser:
    """A parser with what all benchmarks are asked: `--out`, and `--device` where they choose one."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result")
    if device:
        parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser


def clip_options(parser: argparse.ArgumentParser) -> None:
    """The model's size and the clip's, as Wan2.1-1.3B's recipe has them unless told otherwise."""
    parser.add_argument("--size", default="1.3b", help="see benchmarks/full_size.py; tiny is for tests")
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=832)
    parser.add_argument("--frames", type=int, default=33)


def in_turn(names: Sequence[str], repeats: int) -> Iterator[tuple[int, str]]:
    """Which side is next, with the number of its repeat: the order alternates from repeat to repeat."""
    for repeat in range(repeats):
        for name in names if repeat % 2 == 0 else reversed(names):
            yield repeat, name


class Clock:
    """Seconds since it was made, and what is left of a limit."""

    def __init__(self, limit: float = float("inf")) -> None:
        self._begun = time.monotonic()
        self._limit = limit

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._begun

    @property
    def left(self) -> float:
        """Of the limit."""
        return self._limit - self.seconds

    def say(self, what: str) -> None:
        """Print a line with the time."""
        print(f"[{self.seconds:5.0f} s] {what}", flush=True)


def synchronize(device: str | torch.device) -> None:
    """Wait for the GPU, if it is one."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def elapsed(work: Callable[[], object], device: str | torch.device) -> float:
    """Seconds of `work`, the device's included."""
    synchronize(device)
    begun = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - begun


def release(device: str | torch.device) -> None:
    """Give back what nobody holds, and count peaks from here."""
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak(device: str | torch.device) -> int | None:
    """Bytes of tensors at the peak since `release`; None on a CPU, where nothing counts them."""
    on_gpu = torch.device(device).type == "cuda"
    return int(torch.cuda.max_memory_allocated(device)) if on_gpu else None


def allocated(device: str | torch.device) -> int | None:
    """Bytes of tensors there now; None on a CPU."""
    return int(torch.cuda.memory_allocated(device)) if torch.device(device).type == "cuda" else None


def ceiling(device: str | torch.device) -> float:
    """TFLOP/s of a square product in bfloat16 (float32 on a CPU), the most that this device gives."""
    on_gpu = torch.device(device).type == "cuda"
    size, repeats = (8192, 20) if on_gpu else (512, 3)
    kind = torch.bfloat16 if on_gpu else torch.float32
    left, right = (torch.randn(size, size, device=device).to(kind) for _ in range(2))

    def work() -> None:
        for _ in range(repeats):
            left @ right

    work()
    return 2.0 * size**3 * repeats / elapsed(work, device) / 1e12


def relative(ours: Tensor, plain: Tensor) -> float:
    """||ours - plain|| / ||plain||, in float64."""
    mine, theirs = ours.double().cpu(), plain.double().cpu()
    return float((mine - theirs).norm() / theirs.norm())


@dataclass
class Busy:
    """While it is entered: seconds, the share in which a kernel ran, as the driver says, and peak memory.

    `share` is None where it could not be measured, with the reason in `why`.
    """

    device: str
    seconds: float = 0.0
    share: float | None = None
    why: str = "no GPU"
    peak_gib: float | None = None
    _samples: list[float] = field(default_factory=list)
    _done: threading.Event = field(default_factory=threading.Event)
    _reader: threading.Thread | None = None

    def __enter__(self) -> Self:
        release(self.device)
        if torch.device(self.device).type == "cuda":
            self.why = "too short to sample"
            self._reader = threading.Thread(target=self._read, daemon=True)
            self._reader.start()
        synchronize(self.device)
        self._begun = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        synchronize(self.device)
        self.seconds = time.perf_counter() - self._begun
        self._done.set()
        held = peak(self.device)
        self.peak_gib = None if held is None else held / 2**30
        if self._reader is not None:
            self._reader.join(15)
        self.share = fmean(self._samples) if self._samples else None

    def _read(self) -> None:
        # Each answer is of the last fraction of a second before it.
        ask = ["nvidia-smi", f"--id={torch.cuda.current_device()}", "--query-gpu=utilization.gpu"]
        while not self._done.wait(0.5):
            try:
                answer = subprocess.run(
                    [*ask, "--format=csv,noheader,nounits"], capture_output=True, text=True, timeout=10
                )
                self._samples.append(float(answer.stdout) / 100)
            except (OSError, subprocess.TimeoutExpired, ValueError) as error:
                self.why = f"nvidia-smi: {error}"
                return


def forward_flops(transformer: Any, latent: Sequence[int], text: int) -> dict[str, float]:
    """Operations of one Wan forward pass of one clip, norms and gates left out: `linear`, `attention`.

    A backward pass to adapters adds `linear` once (the frozen weights get no gradient) and `attention` two
    and a half times (five products where the forward pass has two).

    Args:
        latent: (T, H, W) of the latent.
        text: tokens of the prompt.
    """
    config, blocks = transformer.config, len(transformer.blocks)
    width = config.num_attention_heads * config.attention_head_dim
    tokens = prod(cells // patch for cells, patch in zip(latent, config.patch_size, strict=True))
    linear = tokens * (6 * width**2 + 2 * width * config.ffn_dim) + text * 2 * width**2
    return {"linear": 2.0 * blocks * linear, "attention": 4.0 * blocks * tokens * (tokens + text) * width}
