"""Generate: prompts and seeds to mp4 files, latents and rows, one fixed-shape batch a shard."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final

from data.device import device_kind
from data.records import Clip, clip_id
from data.store import Media, Store
from data.threads import in_threads
from data.video import encode_mp4
from tasks import cut_prompts, fingerprints, imports
from tasks.context import (
    ClipJob,
    Generation,
    PolicyRef,
    RoundContext,
    Sampled,
    gpu_turn,
    open_sampler,
    open_store,
)
from tasks.networks import report_network
from tasks.recent import Recent
from tasks.shared import Shared
from tasks.stage_spec import Phase, StageSpec
from tasks.units import OneAnswer

if TYPE_CHECKING:
    from models.sampling.sampler import Generated, Sampler

STAGE = "generate"


@dataclass(frozen=True)
class GenerateShard(OneAnswer):
    """The clips of one batch: at most `batch_size` jobs of one policy.

    `stage_prompts` are the texts of all the shards it was cut with, for a sampler that encodes them at once.
    They are no part of the question, and do not travel with the unit.
    """

    how: Generation
    policy: PolicyRef
    jobs: tuple[ClipJob, ...]
    label: str
    stage_prompts: Shared[tuple[str, ...]] = field(compare=False)
    task: ClassVar[str] = "generate-shard"

    @property
    def question(self) -> dict[str, Any]:
        """What decides these clips."""
        return fingerprints.generate(self.how, self.policy, self.jobs)

    @property
    def spreads(self) -> bool:
        return True

    def run(self) -> None:
        """Sample, decode, encode, commit."""
        store = open_store(self.how.root)
        # A batch that is not full is filled up, for its shape is part of a clip's identity.
        batch = self.jobs + self.jobs[-1:] * (self.how.batch_size - len(self.jobs))
        model = self.how.model
        # Quantised weights change their form while a layer computes, also on a CPU.
        with (
            gpu_turn(model.device, alone=model.quantise != "none"),
            open_sampler(self.how, self.policy) as sampler,
        ):
            report_sampler(sampler)
            sampler.prepare(self.stage_prompts.value)
            made = sampler.generate([job.prompt.text for job in batch], [job.seed for job in batch])
            name, compiled = sampler.name, sampler.compiled
        # The sampler is free: with two workers the next batch is made while this one is encoded and written.
        rows, media = self._keep(store, made, name, compiled)
        counts = {"clips": len(rows), "prompts": len({row.prompt_id for row in rows})}
        prompts = list(dict.fromkeys(job.prompt for job in self.jobs))
        store.commit(STAGE, self.question, {"clips": rows, "prompts": prompts}, media, info=counts)

    def _keep(
        self, store: Store, made: Generated, sampler: str, compiled: bool
    ) -> tuple[list[Clip], list[Media]]:
        from safetensors.torch import save

        how, count = self.how, len(self.jobs)
        embed_rows = made.embed_rows[:count]
        tensors = {
            "latents": made.latents[:count].contiguous(),
            "prompt_embeds": made.embeds[: max(embed_rows) + 1].contiguous(),
        }
        device = device_kind(how.model.device)
        libraries = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "diffusers"))
        code = f"generate {fingerprints.VERSIONS[STAGE]}, {libraries}" + (", compiled" if compiled else "")
        latents = store.write_media(save(tensors), ".safetensors")
        media = [latents]
        rows = []
        files = in_threads(lambda frames: encode_mp4(frames, how.fps, how.video), list(made.frames[:count]))
        for row, (job, file) in enumerate(zip(self.jobs, files, strict=True)):
            video = store.write_media(file, ".mp4")
            media.append(video)
            rows.append(
                Clip(
                    clip_id=clip_id(
                        self.policy.policy_id,
                        job.prompt.text,
                        job.seed,
                        self.question["sampling"],
                        how.batch_size,
                    ),
                    prompt_id=job.prompt.prompt_id,
                    prompt=job.prompt.text,
                    category=job.prompt.category,
                    split=job.prompt.split,
                    policy_id=self.policy.policy_id,
                    seed=job.seed,
                    width=how.sample.width,
                    height=how.sample.height,
                    frames=how.sample.frames,
                    fps=float(how.fps),
                    sampler=sampler,
                    steps=how.sample.steps,
                    guidance=how.sample.guidance,
                    batch_size=how.batch_size,
                    row_in_batch=row,
                    video_path=video.path,
                    video_sha256=video.sha256,
                    codec=how.video.describe(),
                    latent_path=latents.path,
                    latent_row=row,
                    embed_row=embed_rows[row],
                    device_kind=device,
                    code_version=code,
                )
            )
        return rows, media


# Every later unit names its inputs by these, and their keys take a while.
_made: Final[Recent[tuple[GenerateShard, ...]]] = Recent(16)


def report_sampler(sampler: Sampler, *roles: str) -> None:
    """Say how a sampler's networks compute; `roles`: only these."""
    from models.sampling.networks import sampler_lines

    for role, line in sampler_lines(sampler).items():
        if not roles or role in roles:
            report_network(role, line)


def shards(
    how: Generation, policy: PolicyRef, jobs: Sequence[ClipJob], what: str = "clips"
) -> tuple[GenerateShard, ...]:
    """`jobs` in their order, cut into shards of `batch_size`; those of one tuple are made once."""
    return _made.get(jobs, (how, policy, what), lambda: tuple(_shards(how, policy, tuple(jobs), what)))


def _shards(
    how: Generation, policy: PolicyRef, jobs: tuple[ClipJob, ...], what: str
) -> Iterator[GenerateShard]:
    size = how.batch_size
    prompts = Shared(tuple(dict.fromkeys(job.prompt.text for job in jobs)))
    for start in range(0, len(jobs), size):
        label = f"{what} {start + 1}-{min(start + size, len(jobs))} of {len(jobs)}"
        yield GenerateShard(how, policy, jobs[start : start + size], label, prompts)


def candidates(how: Generation, sampled: Sampled, what: str = "clips") -> list[tuple[GenerateShard, ...]]:
    """The shards of some clips; of a best-of-N policy N lists, in each of which the jobs are cut alike."""
    *_, last = range(len(sampled.candidates))
    names = [what] if not last else [f"{what} (candidate {place + 1})" for place in range(last + 1)]
    return [
        shards(how, sampled.policy, jobs, name) for jobs, name in zip(sampled.candidates, names, strict=True)
    ]


def units(context: RoundContext) -> list[GenerateShard]:
    """The clips that the round makes, and after them those of the earlier rounds that it learns from.

    Of a best-of-N policy all candidates: the score stage chooses.
    """
    names = ["clips", *(["earlier clips"] * len(context.earlier))]
    return [
        shard
        for sampled, what in zip(context.training, names, strict=True)
        for some in candidates(context.generation, sampled, what)
        for shard in some
    ]


SPEC: Final = StageSpec(
    name=STAGE,
    flow="generate-videos",
    version=fingerprints.VERSIONS[STAGE],
    title="clips from the policy",
    does="Have every training clip of the recipe in the store.",
    phases=lambda context: iter([Phase([*units(context), *imports.held(context)])]),
    form=(
        "generate.prompts",
        "generate.clips_per_prompt",
        "generate.batch_size",
        "generate.steps",
        "generate.guidance",
    ),
    warnings=cut_prompts.in_generation,
)
