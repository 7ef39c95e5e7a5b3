"""What the benchmarks of generation share: a model, its prompts, and both ways of sampling it."""

from __future__ import annotations

import argparse
import copy
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import torch
from torch import Tensor

from benchmarks.full_size import build_pipeline, with_dtype
from data.prompts import load_prompts
from data.store import Store
from data.video import VideoSettings, encode_mp4
from models.families import get_family
from models.families.base import Family
from models.sampling.sampler import Sampler
from models.settings import FastSettings, ModelSettings, SampleSettings
from tasks.context import RESIDENTS, ClipJob, Generation, PolicyRef, resident_name
from tasks.generate import shards
from tasks.units import Runner

LIBRARIES: Final = ("torch", "diffusers", "transformers", "av", "numpy")
# No adapter: the weights are the base's.
NO_POLICY: Final = PolicyRef("random-weights", "random-weights")
_VIDEO: Final = VideoSettings(crf=10, pix_fmt="yuv420p")


@dataclass(frozen=True)
class Workload:
    """What is generated.

    Attributes:
        family, size: a name of `benchmarks.full_size.SIZES`, split at a dash.
        device: "cpu" or "cuda".
        dtype: of transformer and text encoder, on both sides.
        sample: how clips are sampled; `fast` is left to the side that is.
        batch_size: of ours; the plain way has 1.
        fps: of the files.
    """

    family: str
    size: str
    device: str
    dtype: str
    sample: SampleSettings
    batch_size: int
    fps: int = 16

    @property
    def shape(self) -> str:
        """Height x width x frames."""
        return f"{self.sample.height}x{self.sample.width}x{self.sample.frames}"

    def as_json(self) -> dict[str, Any]:
        """For `Result.shape`."""
        return {
            "model": f"{self.family}-{self.size}, random weights",
            "clip": self.shape,
            "steps": self.sample.steps,
            "guidance": self.sample.guidance,
            "batch size of ours": self.batch_size,
            "dtype": self.dtype,
        }

    def jobs(self, count: int) -> list[ClipJob]:
        """`count` clips of different seeds; their prompts come round again."""
        prompts = load_prompts("train")
        return [ClipJob(prompts[i % len(prompts)], 1000 + i) for i in range(count)]

    def pipeline(self) -> Any:
        """The model with a float32 VAE, as the plain way has it."""
        return build_pipeline(
            self.family, self.size, self.device, getattr(torch, self.dtype), vae_dtype=torch.float32
        )


def arguments(description: str) -> argparse.ArgumentParser:
    """The options that all benchmarks of generation have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--family", default="wan")
    parser.add_argument("--size", default="1.3b", help="see benchmarks/full_size.py; tiny is for tests")
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=832)
    parser.add_argument("--frames", type=int, default=33)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--guidance", type=float, default=5.0)
    parser.add_argument("--tokens", type=int, default=512, help="of the prompt, padded")
    parser.add_argument("--batch-size", type=int, default=8, help="clips that ours samples together")
    parser.add_argument("--decode-batch", type=int, default=1, help="clips that ours decodes together")
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--max-seconds", type=float, default=480.0, help="asks for fewer clips when short")
    parser.add_argument("--out", type=Path, default=None, help="folder of the result; benchmarks/results")
    return parser


def workload(options: argparse.Namespace) -> Workload:
    """What the options of `arguments` ask for."""
    sample = SampleSettings(
        steps=options.steps,
        guidance=options.guidance,
        height=options.height,
        width=options.width,
        frames=options.frames,
        max_sequence_length=options.tokens,
        decode_batch=options.decode_batch,
    )
    return Workload(options.family, options.size, options.device, options.dtype, sample, options.batch_size)


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


def synchronize(device: str) -> None:
    """Wait for the GPU, if it is one."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


@dataclass
class Busy:
    """Share of the time in which a kernel ran on the GPU, as the driver says, and the peak of memory.

    `share` is None where it could not be measured, with the reason in `why`.
    """

    device: str
    share: float | None = None
    why: str = ""
    peak_gib: float | None = None
    _samples: list[float] = field(default_factory=list)
    _done: threading.Event = field(default_factory=threading.Event)
    _reader: threading.Thread | None = None

    def __enter__(self) -> Self:
        if not self.device.startswith("cuda"):
            self.why = "no GPU"
            return self
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def _read(self) -> None:
        # Each answer is of the last fraction of a second before it.
        ask = ["nvidia-smi", f"--id={torch.cuda.current_device()}", "--query-gpu=utilization.gpu"]
        while not self._done.wait(0.5):
            try:
                answer = subprocess.run(
                    [*ask, "--format=csv,noheader,nounits"], capture_output=True, text=True, timeout=10
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                self.why = f"nvidia-smi: {error}"
                return
            if not answer.stdout.strip().isdigit():
                self.why = f"nvidia-smi said {answer.stdout.strip() or answer.stderr.strip()!r}"
                return
            self._samples.append(float(answer.stdout) / 100)

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._reader is None:
            return
        torch.cuda.synchronize()
        self.peak_gib = torch.cuda.max_memory_allocated() / 2**30
        self._reader.join(15)
        if self._samples:
            self.share = float(np.mean(self._samples))
        elif not self.why:
            self.why = "too short to sample"


@dataclass(frozen=True)
class Made:
    """What one side made: final latents [C, T, H, W] by seed, and what it cost."""

    latents: dict[int, Tensor]
    seconds: float
    clips: int
    bytes_a_clip: float
    busy: Busy

    @property
    def an_hour(self) -> float:
        """Clips a GPU-hour."""
        return 3600 * self.clips / self.seconds


def plain_clip(pipeline: Any, work: Workload, job: ClipJob, folder: Path, steps: int | None = None) -> Tensor:
    """One clip the plain way: the pipeline's call, frames as it gives them, one mp4. Its final latent."""
    kept: dict[str, Tensor] = {}

    def keep(_: Any, step: int, timestep: Any, values: dict[str, Tensor]) -> dict[str, Tensor]:
        kept["latents"] = values["latents"]
        return {}

    sample = work.sample
    frames = pipeline(
        prompt=job.prompt.text,
        negative_prompt=sample.negative_prompt,
        generator=torch.Generator("cpu").manual_seed(job.seed),
        height=sample.height,
        width=sample.width,
        num_frames=sample.frames,
        num_inference_steps=steps or sample.steps,
        guidance_scale=sample.guidance,
        max_sequence_length=sample.max_sequence_length,
        callback_on_step_end=keep,
        output_type="np",
    ).frames[0]
    file = encode_mp4((np.asarray(frames) * 255).round().astype(np.uint8), work.fps, _VIDEO)
    (folder / f"{job.seed}.mp4").write_bytes(file)
    return kept["latents"].float().cpu()


def run_plain(pipeline: Any, work: Workload, jobs: Sequence[ClipJob], clock: Clock, until: float) -> Made:
    """The plain way over `jobs`; stops early, after at least one clip, when `clock` has less than `until`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain_clip(pipeline, work, jobs[0], folder, steps=min(2, work.sample.steps))  # warm-up
        latents: dict[int, Tensor] = {}
        with Busy(work.device) as busy:
            begun = time.monotonic()
            for job in jobs:
                latents[job.seed] = plain_clip(pipeline, work, job, folder)[0]
                if clock.left < until + (time.monotonic() - begun) / len(latents):
                    break
            synchronize(work.device)
            seconds = time.monotonic() - begun
        sizes = [(folder / f"{seed}.mp4").stat().st_size for seed in latents]
    return Made(latents, seconds, len(latents), float(np.mean(sizes)), busy)


@dataclass(frozen=True)
class Ours:
    """Our sampler over a pipeline, and the way the product asks it for clips."""

    work: Workload
    family: Family
    sampler: Sampler
    how: Generation
    warm_up_seconds: float

    def run(self, jobs: Sequence[ClipJob], root: Path) -> Made:
        """The generate stage over `jobs`, whole batches, into a new store: prompts to files and manifests."""
        store = Store.open(root, create=True)
        how = replace(self.how, root=str(root))
        units = shards(how, NO_POLICY, jobs)
        with Busy(self.work.device) as busy:
            begun = time.monotonic()
            # Two workers: one batch is denoised while the files of the one before are written.
            Runner(workers=2)(store, "generate", units)
            synchronize(self.work.device)
            seconds = time.monotonic() - begun
        latents: dict[int, Tensor] = {}
        sizes = []
        for unit in units:
            for row in store.read(unit.keys[0], "clips"):
                latents[row.seed] = _latents(store, row.latent_path)[row.latent_row]
                sizes.append(len(store.read_media(row.video_path)))
        return Made(latents, seconds, len(jobs), float(np.mean(sizes)), busy)


def description(work: Workload, fast: FastSettings | None = None) -> Generation:
    """How `ours` generates; its root, the store's, is still empty."""
    model = ModelSettings(work.family, f"random weights of {work.size}", dtype=work.dtype, device=work.device)
    sample = replace(work.sample, fast=fast)
    return Generation("", model, sample, _VIDEO, work.fps, work.batch_size)


@contextmanager
def ours(pipeline: Any, work: Workload, fast: FastSettings | None = None) -> Iterator[Ours]:
    """Our sampler over the same weights, with a VAE in the transformer's dtype, warmed up and resident.

    Within, `tasks.generate` finds this sampler where it would otherwise load a model from a folder.
    """
    family = get_family(work.family)
    mine = copy.copy(pipeline)
    mine.vae = with_dtype(pipeline.vae, getattr(torch, work.dtype))
    how = description(work, fast)
    sampler = Sampler.on(family, mine, how.model, how.sample)
    sampler.prepare([job.prompt.text for job in work.jobs(work.batch_size)])
    begun = time.monotonic()
    warm_up(sampler, work)
    warm_up_seconds = time.monotonic() - begun
    name = resident_name(how.model, how.sample, NO_POLICY)
    with RESIDENTS.borrow("sampler", name, lambda: sampler, lambda first: first.fork()):
        pass
    try:
        yield Ours(work, family, sampler, how, warm_up_seconds)
    finally:
        RESIDENTS.give_up("sampler")


def warm_up(sampler: Sampler, work: Workload) -> None:
    """Two steps of a whole batch, decoded: what compiles and what chooses kernels has done so after it."""
    jobs = work.jobs(work.batch_size)
    embeds = sampler.encode([job.prompt.text for job in jobs])
    steps = min(2, work.sample.steps)
    sampler.decode(sampler.sample(embeds, [job.seed for job in jobs], steps=steps))
    synchronize(work.device)


def relative(ours: Tensor, plain: Tensor) -> float:
    """||ours - plain|| / ||plain||, in float64."""
    mine, theirs = ours.double().cpu(), plain.double().cpu()
    return float((mine - theirs).norm() / theirs.norm())


def _latents(store: Store, path: str) -> Tensor:
    from safetensors.torch import load

    latents: Tensor = load(store.read_media(path))["latents"]
    return latents
