"""What the modes of generation do to clips, by the miniature's oracle: the share that obey their law.

    python -m benchmarks.quality --clips 2048 --steps 50                  results/generation-quality.json

The same prompts and seeds in every mode, each clip through its mp4, differences with a 95% interval (paired,
over prompts). Reference: float32, eager. The miniature samples in 6 steps by default; step caching
needs more to leave any out, so all modes are measured at the steps given here, and a run of fewer steps that
asks the network as often as the fast mode stands beside it.

    python -m benchmarks.quality --quantised --clips 2048 --steps 6       results/quantised-quality.json

compares weights held in fewer bits with the reference instead, at the miniature's own steps.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np
import numpy.typing as npt

from benchmarks.harness import Result, options, write
from data.keys import clip_seed
from data.prompts import load_prompts
from data.records import Prompt
from data.threads import cores, in_threads
from data.video import VideoSettings, decode_mp4, encode_mp4
from miniature.world.corpus import processes, verdicts
from models.families.settings import Dtype, ModelSettings, Quantise, SampleSettings, StepCacheSettings
from models.gate import intervals
from models.sampling.sampler import Sampler

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
    dtype: Dtype
    compiled: bool
    steps: int
    fast: StepCacheSettings | None = None
    quantise: Quantise = "none"

    @property
    def asked(self) -> int:
        """Steps at which the network runs."""
        return self.steps if self.fast is None else self.fast.computed(self.steps)


@dataclass(frozen=True)
class Quality:
    """Oracle success of one mode, and its difference from the reference."""

    mode: Mode
    rate: float
    change: intervals.Interval


def modes(steps: int, device: str, intervals: Sequence[int] = (2, 3)) -> list[Mode]:
    """The reference, the exact mode, fast modes, and fewer steps at the first fast mode's price."""
    gpu = device.startswith("cuda")
    dtype: Dtype = "bfloat16" if gpu else "float32"
    caches = [StepCacheSettings(interval=interval) for interval in intervals]
    return [
        Mode("reference: float32, eager", "float32", False, steps),
        Mode(f"exact: {dtype}" + (", compiled" if gpu else ""), dtype, gpu, steps),
        *(Mode(cache.describe(), dtype, gpu, steps, cache) for cache in caches),
        Mode("fewer steps", dtype, gpu, caches[0].computed(steps)),
    ]


def quantised_modes(steps: int, device: str) -> list[Mode]:
    """The reference, the exact mode, and each way to hold weights in fewer bits, eager."""
    reference, exact = modes(steps, device)[:2]
    ways = [how for how in get_args(Quantise) if how != "none"]
    return [
        reference,
        exact,
        *(Mode(f"{how}: {exact.dtype}, eager", exact.dtype, False, steps, None, how) for how in ways),
    ]


def measure(device: str, clips: int, batch: int, modes: Sequence[Mode]) -> list[Quality]:
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
    for mode in modes:
        begun = time.monotonic()
        passed = _passed(device, mode, jobs, batch)
        before = passed if before is None else before
        change = intervals.mean(passed - before, clusters, 0.95)
        found.append(Quality(mode, float(passed.mean()), change))
        seconds = time.monotonic() - begun
        print(f"{mode.name}: {passed.mean():.4f} of {len(passed)} clips in {seconds:.0f} s", flush=True)
    return found


def _passed(
    device: str, mode: Mode, jobs: Sequence[tuple[Prompt, int]], batch: int
) -> npt.NDArray[np.float64]:
    model = ModelSettings(
        family="wan",
        path=str(_FOLDER),
        dtype=mode.dtype,
        device=device,
        compile=mode.compiled,
        quantise=mode.quantise,
    )  # fmt: skip
    sampler = Sampler.open(model, _SAMPLE.changed(steps=mode.steps, step_cache=mode.fast))
    sampler.prepare([prompt.text for prompt, _ in jobs])
    seen = []
    for start in range(0, len(jobs), batch):
        part = list(jobs[start : start + batch])
        padded = part + part[-1:] * (batch - len(part))
        made = sampler.generate([prompt.text for prompt, _ in padded], [seed for _, seed in padded])
        seen += in_threads(_through_mp4, list(made.frames[: len(part)]))
    clips, texts = np.stack(seen), [prompt.text for prompt, _ in jobs]
    # The oracle holds Python's lock, so many clips are worth processes of their own.
    with ExitStack() as stack:
        pool = stack.enter_context(processes(cores())) if len(jobs) >= _WORTH_PROCESSES else None
        return np.asarray([verdict.passed for verdict in verdicts(clips, texts, pool)], np.float64)


def _through_mp4(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return decode_mp4(encode_mp4(frames, _FPS, VideoSettings()))[0]


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


def main() -> None:
    """See the module's docstring."""
    parser = options(__doc__)
    parser.add_argument("--clips", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--quantised", action="store_true", help="weights held in fewer bits, no fast modes")
    asked = parser.parse_args()
    chosen = (quantised_modes if asked.quantised else modes)(asked.steps, asked.device)
    found = measure(asked.device, asked.clips, asked.batch, chosen)
    # Of quantised weights the last mode is what is asked about, else the exact one.
    reference, ours = found[0], found[-1 if asked.quantised else 1]
    result = Result(
        "quantised-quality" if asked.quantised else "generation-quality",
        reference.rate,
        ours.rate,
        "oracle success of the miniature's clips",
        more_is_better=True,
        libraries=("torch", "diffusers", "av", "numpy"),
        shape={"clips a mode": asked.clips, "steps": asked.steps, "batch size": asked.batch},
        equality=as_json(found),
    )
    write(result, asked.out)


if __name__ == "__main__":
    main()
