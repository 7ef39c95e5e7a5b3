"""What the modes of generation do to clips, by the miniature's oracle: the share that obey their law.

    python -m benchmarks.quality --clips 2048 --steps 50                  results/generation-quality.json

The same prompts and seeds in every mode, each clip through its mp4, differences with a 95% interval (paired
bootstrap over prompts). Reference: float32, eager. The miniature samples in 6 steps by default; step caching
needs more to leave any out, so all modes are measured at the steps given here, and a run of fewer steps that
asks the network as often as the fast mode stands beside it.

    python -m benchmarks.quality --quantised --clips 2048 --steps 6       results/quantised-quality.json

compares weights held in fewer bits with the reference instead, at the miniature's own steps.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.result import RESULTS, Result, command_line, device_name, show, versions, write
from data.keys import clip_seed
from data.prompts import load_prompts
from data.records import Prompt
from data.threads import cores, in_threads
from data.video import VideoSettings, decode_mp4, encode_mp4
from miniature.world.oracle import judge
from models.gate import bootstrap
from models.sampling.sampler import Sampler
from models.settings import QUANTISED, FastSettings, ModelSettings, Quantise, SampleSettings

_FOLDER: Final = Path(__file__).resolve().parent.parent / "miniature/weights/wan"
_FPS: Final = 8
_WORTH_PROCESSES: Final = 256
_SAMPLE: Final = SampleSettings(
    steps=50, guidance=1.0, height=64, width=64, frames=17, max_sequence_length=24
)


@dataclass(frozen=True)
class Mode:
    """One way to sample: its precision, whether compiled, steps and step cache."""

    name: str
    dtype: str
    compiled: bool
    steps: int
    fast: FastSettings | None = None
    quantise: Quantise = "none"

    @property
    def asked(self) -> int:
        """Steps at which the network runs."""
        return self.steps if self.fast is None else self.fast.asked(self.steps)


@dataclass(frozen=True)
class Quality:
    """Oracle success of one mode, and its difference from the reference."""

    mode: Mode
    rate: float
    seconds: float
    change: bootstrap.Interval


Clip = tuple[npt.NDArray[np.uint8], str]
Judges = Callable[[Callable[[Clip], float], list[Clip]], list[float]]


@contextmanager
def oracles(clips: int) -> Iterator[Judges]:
    """The oracle on all cores. It holds Python's lock, so many clips are worth processes of their own."""
    if clips < _WORTH_PROCESSES:
        yield in_threads
        return
    with ProcessPoolExecutor(cores(), mp_context=get_context("spawn")) as pool:
        yield lambda work, items: list(pool.map(work, items, chunksize=4))


def modes(steps: int, device: str, intervals: Sequence[int] = (2, 3)) -> list[Mode]:
    """The reference, the exact mode, fast modes, and fewer steps at the first fast mode's price."""
    gpu = device.startswith("cuda")
    dtype = "bfloat16" if gpu else "float32"
    caches = [FastSettings(interval=interval) for interval in intervals]
    return [
        Mode("reference: float32, eager", "float32", False, steps),
        Mode(f"exact: {dtype}" + (", compiled" if gpu else ""), dtype, gpu, steps),
        *(Mode(cache.describe(), dtype, gpu, steps, cache) for cache in caches),
        Mode("fewer steps", dtype, gpu, caches[0].asked(steps)),
    ]


def quantised_modes(steps: int, device: str) -> list[Mode]:
    """The reference, the exact mode, and each way to hold weights in fewer bits, eager."""
    reference, exact = modes(steps, device)[:2]
    ways = [how for how in QUANTISED if how != "none"]
    return [
        reference,
        exact,
        *(Mode(f"{how}: {exact.dtype}, eager", exact.dtype, False, steps, None, how) for how in ways),
    ]


def measure(device: str, clips: int, steps: int, batch: int, modes: Sequence[Mode]) -> list[Quality]:
    """Oracle success of every mode over the same `clips`; the first mode is the reference."""
    prompts = load_prompts("heldout")
    jobs = [
        (prompt, clip_seed(77, prompt.prompt_id, index, "benchmark"))
        for index in range(-(-clips // len(prompts)))
        for prompt in prompts
    ][:clips]
    clusters: npt.NDArray[np.int64] = np.asarray([prompts.index(prompt) for prompt, _ in jobs], np.int64)
    found: list[Quality] = []
    before: npt.NDArray[np.float64] | None = None
    with oracles(clips) as judges:
        for mode in modes:
            begun = time.monotonic()
            passed = _passed(device, mode, jobs, batch, judges)
            seconds = time.monotonic() - begun
            if before is None:
                before = passed
            change = bootstrap.mean(passed - before, clusters, 10_000, 0.95, 0)
            found.append(Quality(mode, float(passed.mean()), seconds, change))
            print(f"{mode.name}: {passed.mean():.4f} of {len(passed)} clips in {seconds:.0f} s", flush=True)
    return found


def _passed(
    device: str, mode: Mode, jobs: Sequence[tuple[Prompt, int]], batch: int, judges: Judges
) -> npt.NDArray[np.float64]:
    model = ModelSettings(
        "wan",
        str(_FOLDER),
        dtype=mode.dtype,
        device=device,
        compile=mode.compiled,
        quantise=mode.quantise,
    )
    sampler = Sampler.open(model, replace(_SAMPLE, steps=mode.steps, fast=mode.fast))
    sampler.prepare([prompt.text for prompt, _ in jobs])
    passed: list[float] = []
    for start in range(0, len(jobs), batch):
        part = list(jobs[start : start + batch])
        padded = part + part[-1:] * (batch - len(part))
        made = sampler.generate([prompt.text for prompt, _ in padded], [seed for _, seed in padded])
        texts = [prompt.text for prompt, _ in part]
        passed += judges(_verdict, list(zip(made.frames, texts, strict=False)))
    return np.asarray(passed, np.float64)


def _verdict(clip: Clip) -> float:
    frames, text = clip
    seen, _ = decode_mp4(encode_mp4(frames, _FPS, VideoSettings()))
    return 1.0 if judge(seen, text).passed else 0.0


def as_json(found: Sequence[Quality]) -> dict[str, Any]:
    """By mode: success, difference from the reference with its interval, network passes, whether equal."""
    return {
        one.mode.name: {
            "oracle success": one.rate,
            "difference": one.change.value,
            "interval": [one.change.low, one.change.high],
            "steps": one.mode.steps,
            "network asked at": one.mode.asked,
            "zero lies in the interval": (one.change.low or 0.0) <= 0.0 <= (one.change.high or 0.0),
        }
        for one in found
    }


def table(found: Sequence[Quality], clips: int) -> None:
    """Print what `measure` found."""
    show(
        f"Oracle success on the miniature, {clips} clips of held-out prompts",
        ["", "network asked at", "success", "difference", "95% interval"],
        [
            [
                one.mode.name, f"{one.mode.asked} of {one.mode.steps}", f"{one.rate:.4f}",
                f"{one.change.value:+.4f}", f"{one.change.low or 0:+.4f} to {one.change.high or 0:+.4f}",
            ]
            for one in found
        ],
    )  # fmt: skip


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description="quality of the modes of generation, by the oracle")
    parser.add_argument("--clips", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--quantised", action="store_true", help="weights held in fewer bits, no fast modes")
    options = parser.parse_args()
    chosen = (quantised_modes if options.quantised else modes)(options.steps, options.device)
    found = measure(options.device, options.clips, options.steps, options.batch, chosen)
    # Of quantised weights the last mode is what is asked about, else the exact one.
    reference, ours = found[0], found[-1 if options.quantised else 1]
    path = write(
        Result(
            name="quantised-quality" if options.quantised else "generation-quality",
            device=device_name(),
            plain=reference.rate,
            ours=ours.rate,
            ratio=ours.rate / reference.rate if reference.rate else 0.0,
            unit="oracle success of the miniature's clips",
            shape={"clips a mode": options.clips, "steps": options.steps, "batch size": options.batch},
            equality=as_json(found),
            command=command_line(),
            versions=versions("torch", "diffusers", "av", "numpy"),
        ),
        options.out,
    )
    table(found, options.clips)
    print(f"written to {path}")


if __name__ == "__main__":
    main()
