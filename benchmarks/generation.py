"""Generation, ours against the plain way: clips a GPU-hour from prompt to mp4 on disk.

    python -m benchmarks.generation --clips 16 --plain-clips 8            results/generation.json
    python -m benchmarks.generation --two-gpus --steps 10 --clips 32      results/generation-two-gpus.json
    python -m benchmarks.generation --two-gpus --whole --steps 25     results/generation-two-gpus-whole.json

Plain is a loop over the diffusers pipeline that writes mp4s: batch 1, eager, default attention, float32 VAE,
everything resident. Ours is the generate stage itself, over the same weights, with two workers that take
turns on the GPU. Weights are random (benchmarks/full_size.py), so the clips show nothing; they take as long.
The result is written as soon as the timed part is over, and again when the comparison is done.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness import Clock, ceiling, elapsed, forward_flops, relative, write
from benchmarks.one_policy import random_adapter
from benchmarks.workload import (
    Made,
    Ours,
    Workload,
    arguments,
    compared,
    denoised,
    ours,
    run_plain,
    workload,
)
from data.video import encode_mp4
from models.compile import fastest_attention
from models.families import get_family
from models.sampling.sampler import Sampler
from tasks.context import ClipJob

PREDICTION_TOLERANCE: Final = 1e-2
# Noise levels at which single predictions are compared.
_SIGMAS: Final = (0.97, 0.7, 0.25)
# Seconds kept back for the comparisons after the timed part, and the share of the rest that ours needs.
_REST: Final = 60.0
_SHARE: Final = 0.6
# The rms of an adapter's B: it changes a clip, and clips that differ take as long.
_YOUNG: Final = 5e-4


def main() -> None:
    """See the module's docstring."""
    parser = arguments(__doc__)
    parser.add_argument("--deviation-steps", type=int, default=6, help="of the final-latent table; 0: none")
    parser.add_argument("--adapter", type=int, default=32, help="rank of the adapter's row; 0: none")
    parser.add_argument("--two-gpus", action="store_true", help="instead: all GPUs against one")
    parser.add_argument("--whole", action="store_true", help="of --two-gpus: one GPU makes all clips")
    asked = parser.parse_args()
    work, clock = workload(asked), Clock(asked.max_seconds)
    if asked.two_gpus:
        from benchmarks.two_gpus import compare

        compare(work, asked.clips, asked.out, asked.whole)
        return
    pipeline = work.pipeline()
    built = clock.seconds
    jobs = work.jobs(max(asked.clips, asked.plain_clips))
    plain = run_plain(pipeline, work, jobs[: asked.plain_clips], clock, until=_SHARE * clock.left)
    with ours(pipeline, work) as exact:
        made = exact.run(jobs[: _affordable(exact, clock, asked.clips, 2 if asked.adapter else 1)])
        details: dict[str, Any] = {
            "model built (s)": round(built, 1),
            "first start: compile and warm-up (s)": round(exact.warm_up_seconds, 1),
            **_costs(exact, pipeline, made, plain),
        }
        pending = {"pending": "written when the comparison is done"}
        result = compared("generation", work, plain, made, details, pending)
        write(result, asked.out)
        equality = _equality(exact, plain, made, asked.deviation_steps)
    if asked.adapter:
        details |= _with_adapter(pipeline, work, asked.adapter, jobs[: made.clips], plain, made)
    details |= {"second start: cached compile and warm-up (s)": _second_start(pipeline, work)}
    write(replace(result, equality=equality, details={**result.details, **details}), asked.out)
    clock.say("done")


def _with_adapter(
    pipeline: Any, work: Workload, rank: int, jobs: list[ClipJob], plain: Made, made: Made
) -> dict[str, Any]:
    """The same clips by a policy that has an adapter on all of its family's targets."""
    data = random_adapter(get_family(work.family), pipeline.transformer, rank, _YOUNG)
    with ours(pipeline, work, adapter=data) as sampled:
        tuned = sampled.run(jobs)
    return {
        f"with an adapter of rank {rank}, clips per GPU-hour": round(tuned.an_hour, 1),
        "with it, times as fast as plain without one": round(tuned.an_hour / plain.an_hour, 3),
        "with it, time of ours without one = 1": round(made.an_hour / tuned.an_hour, 3),
    }


def _affordable(exact: Ours, clock: Clock, clips: int, runs: int) -> int:
    """Clips in whole batches, as many as asked for, if the time allows them `runs` times; at least one."""
    work = exact.work
    steps = min(2, work.sample.steps)
    batch = elapsed(lambda: denoised(exact.sampler, work), work.device) / steps * work.sample.steps * 1.1
    allowed, wanted = max(1, int((clock.left - _REST) / runs / batch)), work.whole(clips) // work.batch_size
    if allowed < wanted:
        clock.say(f"{clock.left:.0f} s left at {batch:.0f} s a batch: {allowed} of {wanted} batches")
    return min(wanted, allowed) * work.batch_size


def _costs(exact: Ours, pipeline: Any, made: Made, plain: Made) -> dict[str, Any]:
    """Where the time goes: one batch decoded, one file encoded, and the rate of the denoising."""
    work = exact.work
    latents = torch.stack(list(made.latents.values())[: work.batch_size]).to(work.device)
    frames = exact.sampler.decode(latents)
    again = partial(exact.family.decode, pipeline, latents[:1])
    levels = np.abs(frames[0].astype(np.float32) - again()[0].astype(np.float32)).mean()
    encode = partial(encode_mp4, np.asarray(frames[0]), work.fps, exact.how.video)
    decode = elapsed(lambda: exact.sampler.decode(latents), work.device) / len(latents)
    found: dict[str, Any] = {
        "decode (s a clip, on the device)": round(decode, 3),
        "decode by the float32 VAE (s a clip)": round(elapsed(again, work.device), 3),
        "frames of both VAEs, mean difference in levels of 255": round(float(levels), 3),
        "mp4 (s a clip, one core, beside the next batch)": round(elapsed(encode, "cpu"), 3),
    }
    if work.family == "wan" and work.device.startswith("cuda"):
        passes = work.sample.steps * (2 if work.sample.guidance > 1 else 1)
        text = work.sample.max_sequence_length
        flops = forward_flops(exact.sampler.pipeline.transformer, latents.shape[2:], text)
        clip = passes * sum(flops.values()) / 1e12
        found["TFLOP/s over the whole run"] = {
            "plain": round(clip * plain.clips / plain.seconds),
            "ours": round(clip * made.clips / made.seconds),
            "matmul 8192 bf16, the measured ceiling": round(ceiling(work.device)),
        }
    return found


@torch.no_grad()
def _equality(exact: Ours, plain: Made, made: Made, steps: int) -> dict[str, Any]:
    """Predictions on identical inputs, and how far final latents drift, beside how far batch sizes drift."""
    work, family, sampler = exact.work, exact.family, exact.sampler
    jobs = work.jobs(work.batch_size)
    embeds = sampler.encode(work.texts())
    clean = torch.stack([made.latents[job.seed] for job in jobs]).to(work.device)
    noise = torch.randn(clean.shape, generator=torch.Generator("cpu").manual_seed(7)).to(work.device)
    eager = partial(family.predict, sampler.source.transformer)
    predictions, batched = {}, 0.0
    for level in _SIGMAS:
        sigma = torch.full((len(clean),), level, device=work.device)
        inputs = (family.parameterization.noisy(clean, noise, sigma), sigma, embeds)
        with fastest_attention(sampler.device):
            mine = family.predict(sampler.pipeline.transformer, *inputs)
        together = eager(*inputs)
        predictions[f"sigma {level}"] = relative(mine, together)
        if level == _SIGMAS[1]:
            # What bfloat16 does by itself: the same eager network, asked one by one.
            alone = [eager(*(part[i : i + 1] for part in inputs)) for i in range(len(clean))]
            batched = relative(torch.cat(alone), together)
    both = [seed for seed in plain.latents if seed in made.latents]
    apart = [relative(made.latents[seed], plain.latents[seed]) for seed in both]
    found: dict[str, Any] = {
        "prediction against eager, same inputs, relative": predictions,
        "prediction tolerance": PREDICTION_TOLERANCE,
        f"eager one by one against eager batch {work.batch_size}, the same way": batched,
        "final latent, ours against plain, relative, mean": sum(apart) / len(apart),
        "final latent, ours against plain, relative, largest": max(apart),
    }
    if steps:
        seeds = [job.seed for job in jobs]
        found[f"final latent after {steps} steps, relative"] = _deviation(exact, embeds, seeds, steps)
    return found | {"within tolerance": max(predictions.values()) <= PREDICTION_TOLERANCE}


def _deviation(exact: Ours, embeds: Tensor, seeds: list[int], steps: int) -> dict[str, float]:
    """Against eager sampling one by one, which is what the plain way does."""
    sampler = exact.sampler
    eager = Sampler(
        exact.family, sampler.source, sampler.settings, texts=sampler.texts, offloader=sampler.offloader
    )
    alone = eager.sample(embeds[:1], seeds[:1], steps=steps)[0]
    together: Tensor = eager.sample(embeds, seeds, steps=steps)[0]
    compiled: Tensor = sampler.sample(embeds, seeds, steps=steps)[0]
    return {
        f"eager batch {len(seeds)} against eager batch 1": relative(together, alone),
        f"ours, batch {len(seeds)}, against eager batch 1": relative(compiled, alone),
        f"ours, batch {len(seeds)}, against eager batch {len(seeds)}": relative(compiled, together),
    }


def _second_start(pipeline: Any, work: Workload) -> float | str:
    """Seconds of compile and warm-up when the compiled kernels are on disk already."""
    if not work.device.startswith("cuda"):
        return "nothing is compiled on a CPU"
    torch._dynamo.reset()
    with ours(pipeline, work) as again:
        return round(again.warm_up_seconds, 1)


if __name__ == "__main__":
    main()
