"""What the benchmarks of generation share: a model, its prompts, and both ways of sampling it."""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor

from benchmarks.full_size import build_pipeline, with_dtype
from benchmarks.harness import Busy, Clock, Result, clip_options, elapsed, options
from data.prompts import load_prompts
from data.store import Store
from data.video import VideoSettings, encode_mp4
from models import lora
from models.families import get_family
from models.families.base import Family
from models.families.settings import Dtype, ModelSettings, SampleSettings, StepCacheSettings
from models.sampling.sampler import Sampler
from tasks.context import RESIDENTS, ClipJob, Generation, PolicyRef
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
    dtype: Dtype
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
            "model": f"{self.family}-{self.size}, random weights", "clip": self.shape,
            "steps": self.sample.steps, "guidance": self.sample.guidance,
            "batch size of ours": self.batch_size, "dtype": self.dtype,
        }  # fmt: skip

    def jobs(self, count: int) -> list[ClipJob]:
        """`count` clips of different seeds; their prompts come round again."""
        prompts = load_prompts("train")
        return [ClipJob(prompts[i % len(prompts)], 1000 + i) for i in range(count)]

    def texts(self) -> list[str]:
        """The prompts of a batch of ours."""
        return [job.prompt.text for job in self.jobs(self.batch_size)]

    def whole(self, clips: int) -> int:
        """So many clips, or fewer, in whole batches; at least one batch."""
        return max(1, clips // self.batch_size) * self.batch_size

    def pipeline(self) -> Any:
        """The model with a float32 VAE, as the plain way has it."""
        return build_pipeline(
            self.family, self.size, self.device, getattr(torch, self.dtype), vae_dtype=torch.float32
        )

    def generation(self, fast: StepCacheSettings | None = None) -> Generation:
        """How ours generates; its root, the store's, is still empty."""
        model = ModelSettings(
            family=self.family, path=f"random weights of {self.size}", dtype=self.dtype, device=self.device
        )
        sample = self.sample.changed(step_cache=fast)
        return Generation("", model, sample, _VIDEO, self.fps, self.batch_size)


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """The options that all benchmarks of generation have."""
    parser = options(doc)
    clip_options(parser)
    parser.add_argument("--family", default="wan")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--guidance", type=float, default=5.0)
    parser.add_argument("--tokens", type=int, default=512, help="of the prompt, padded")
    parser.add_argument("--batch-size", type=int, default=8, help="clips that ours samples together")
    parser.add_argument("--decode-batch", type=int, default=1, help="clips that ours decodes together")
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16"])
    parser.add_argument("--clips", type=int, default=16, help="of ours; whole batches")
    parser.add_argument("--plain-clips", type=int, default=8)
    parser.add_argument("--max-seconds", type=float, default=480.0, help="asks for fewer clips when short")
    return parser


def workload(asked: argparse.Namespace) -> Workload:
    """What the options of `arguments` ask for."""
    sample = SampleSettings(
        steps=asked.steps, guidance=asked.guidance, height=asked.height, width=asked.width,
        frames=asked.frames, max_sequence_length=asked.tokens, decode_batch=asked.decode_batch,
    )  # fmt: skip
    return Workload(asked.family, asked.size, asked.device, asked.dtype, sample, asked.batch_size)


@dataclass(frozen=True)
class Made:
    """What one side made: final latents [C, T, H, W] by seed, and what it cost."""

    latents: dict[int, Tensor]
    bytes_a_clip: float
    busy: Busy

    @property
    def seconds(self) -> float:
        """For all of them."""
        return self.busy.seconds

    @property
    def clips(self) -> int:
        """How many."""
        return len(self.latents)

    @property
    def an_hour(self) -> float:
        """Clips a GPU-hour."""
        return 3600 * self.clips / self.seconds


def plain_clip(pipeline: Any, work: Workload, job: ClipJob, path: Path, steps: int | None = None) -> Tensor:
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
    path.write_bytes(encode_mp4((np.asarray(frames) * 255).round().astype(np.uint8), work.fps, _VIDEO))
    return kept["latents"].float().cpu()[0]


def run_plain(pipeline: Any, work: Workload, jobs: Sequence[ClipJob], clock: Clock, until: float) -> Made:
    """The plain way over `jobs`; stops early, after at least one clip, when `clock` has less than `until`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain_clip(pipeline, work, jobs[0], folder / "warm-up.mp4", steps=min(2, work.sample.steps))
        latents: dict[int, Tensor] = {}
        with Busy(work.device) as busy:
            begun = time.monotonic()
            for job in jobs:
                latents[job.seed] = plain_clip(pipeline, work, job, folder / f"{job.seed}.mp4")
                if clock.left < until + (time.monotonic() - begun) / len(latents):
                    break
        sizes = [(folder / f"{seed}.mp4").stat().st_size for seed in latents]
    made = Made(latents, float(np.mean(sizes)), busy)
    clock.say(f"plain: {made.an_hour:.1f} clips an hour, {made.seconds / made.clips:.2f} s a clip")
    return made


@dataclass(frozen=True)
class Ours:
    """Our sampler over a pipeline, and the way the product asks it for clips."""

    work: Workload
    family: Family
    sampler: Sampler
    how: Generation
    warm_up_seconds: float

    def run(self, jobs: Sequence[ClipJob]) -> Made:
        """The generate stage over `jobs`, whole batches, into a new store: prompts to files and manifests."""
        with tempfile.TemporaryDirectory() as root:
            store = Store.open(root, create=True)
            units = shards(replace(self.how, root=root), NO_POLICY, jobs)
            with Busy(self.work.device) as busy:
                # Two workers: one batch is denoised while the files of the one before are written.
                Runner(workers=2)(store, "generate", units)
            rows = [row for unit in units for row in store.read(unit.keys[0], "clips")]
            latents = {
                row.seed: load(store.read_media(row.latent_path))["latents"][row.latent_row] for row in rows
            }
            sizes = [len(store.read_media(row.video_path)) for row in rows]
        return Made(latents, float(np.mean(sizes)), busy)


@contextmanager
def ours(
    pipeline: Any, work: Workload, fast: StepCacheSettings | None = None, adapter: bytes | None = None
) -> Iterator[Ours]:
    """Our sampler over the same weights, with a VAE in the transformer's dtype, warmed up and resident.

    With an adapter the network is a copy, which plays it. Within, `tasks.generate` finds this sampler where
    it would otherwise load a model from a folder.
    """
    family = get_family(work.family)
    mine = copy.copy(pipeline)
    mine.vae = with_dtype(pipeline.vae, getattr(torch, work.dtype))
    if adapter is not None:
        mine.transformer = copy.deepcopy(pipeline.transformer)
        lora.play(mine.transformer, adapter)
    how = work.generation(fast)
    sampler = Sampler.on(family, mine, how.model, how.sample)
    sampler.prepare(work.texts())
    seconds = elapsed(lambda: sampler.decode(denoised(sampler, work)), work.device)
    name = (how.model, how.sample, NO_POLICY)
    with RESIDENTS.borrow("sampler", name, lambda: sampler, lambda first: first.fork()):
        pass
    try:
        yield Ours(work, family, sampler, how, seconds)
    finally:
        RESIDENTS.give_up("sampler")


def denoised(sampler: Sampler, work: Workload) -> Tensor:
    """Two steps of a whole batch: what compiles and what chooses kernels has done so after it."""
    seeds = [job.seed for job in work.jobs(work.batch_size)]
    return sampler.sample(sampler.encode(work.texts()), seeds, steps=min(2, work.sample.steps))


def compared(
    name: str,
    work: Workload,
    plain: Made,
    made: Made,
    details: Mapping[str, Any],
    equality: Mapping[str, Any],
) -> Result:
    """What both sides made, as a result file holds it."""
    sides = {"plain": plain, "ours": made}
    peaks = {side: one.busy.peak_gib for side, one in sides.items()}
    before, after = peaks["plain"], peaks["ours"]
    return Result(
        name, plain.an_hour, made.an_hour, "clips per GPU-hour, prompt to mp4 on disk",
        more_is_better=True, libraries=LIBRARIES, equality=equality,
        shape={**work.as_json(), "clips": made.clips, "plain clips": plain.clips},
        details={
            **details,
            "GPU busy share": {side: one.busy.share or one.busy.why for side, one in sides.items()},
            "peak GiB": peaks,
            "seconds": {side: one.seconds for side, one in sides.items()},
            "mp4 bytes a clip": {side: one.bytes_a_clip for side, one in sides.items()},
        },
        memory_ratio=None if before is None or after is None else after / before,
    )  # fmt: skip
