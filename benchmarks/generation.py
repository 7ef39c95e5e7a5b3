"""Generation, ours against the plain way: clips a GPU-hour from prompt to mp4 on disk.

    python -m benchmarks.generation --clips 16 --plain-clips 8            results/generation.json
    python -m benchmarks.generation --clips 16 --plain-clips 8 --fast     and results/generation-fast.json
    python -m benchmarks.generation --two-gpus --steps 10 --clips 32      results/generation-two-gpus.json
    python -m benchmarks.generation --two-gpus --whole --steps 25     results/generation-two-gpus-whole.json

Plain is a loop over the diffusers pipeline that writes mp4s: batch 1, eager, default attention, float32 VAE,
everything resident. Ours is the generate stage itself, over the same weights, with two workers that take
turns on the GPU. Weights are random (benchmarks/full_size.py), so the clips show nothing; they take as long.
Each result is written as soon as it is there, and again when its comparison is done.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from benchmarks.result import RESULTS, Result, command_line, device_name, show, versions, write
from benchmarks.workload import (
    LIBRARIES,
    Clock,
    Made,
    Ours,
    Workload,
    arguments,
    ours,
    relative,
    run_plain,
    synchronize,
    workload,
)
from models.compiling import preferred_attention
from models.sampling.sampler import Sampler
from models.settings import FastSettings

PREDICTION_TOLERANCE: Final = 1e-2
# Noise levels at which single predictions are compared.
_SIGMAS: Final = (0.97, 0.7, 0.25)
# Seconds kept back for the comparisons after the timed part.
_REST: Final = 60.0


def main() -> None:
    """See the module's docstring."""
    parser = arguments("generation, ours against the plain way")
    parser.add_argument("--clips", type=int, default=16, help="of ours; whole batches")
    parser.add_argument("--plain-clips", type=int, default=8)
    parser.add_argument("--deviation-steps", type=int, default=6, help="of the final-latent table; 0: none")
    parser.add_argument("--fast", action="store_true", help="measure the fast mode too")
    parser.add_argument("--fast-interval", type=int, default=2)
    parser.add_argument("--two-gpus", action="store_true", help="instead: all GPUs against one")
    parser.add_argument("--whole", action="store_true", help="of --two-gpus: one GPU makes all clips")
    options = parser.parse_args()
    if options.two_gpus:
        from benchmarks.two_gpus import compare

        compare(workload(options), options.clips, options.out or RESULTS, options.whole)
        return
    run(workload(options), options)


def run(work: Workload, options: argparse.Namespace) -> None:
    """Both sides over the same prompts and seeds, then how far their results lie apart."""
    clock = Clock(options.max_seconds)
    folder: Path = options.out or RESULTS
    pipeline = work.pipeline()
    synchronize(work.device)
    built = clock.seconds
    jobs = work.jobs(max(options.clips, options.plain_clips))
    plain = run_plain(pipeline, work, jobs[: options.plain_clips], clock, until=_share(options) * clock.left)
    print(f"plain: {plain.an_hour:.1f} clips/h, {plain.seconds / plain.clips:.2f} s a clip", flush=True)
    sides: dict[str, Made] = {}
    with tempfile.TemporaryDirectory() as name:
        with ours(pipeline, work) as exact:
            count = _affordable(exact, clock, options.clips, options.fast)
            sides["ours"] = made = exact.run(jobs[:count], Path(name) / "exact")
            details = {
                "model built (s)": round(built, 1),
                "first start: compile and warm-up (s)": round(exact.warm_up_seconds, 1),
                **_costs(exact, pipeline, made, plain, work),
            }
            pending = {"pending": "written when the comparison is done"}
            result = to_result("generation", work, plain, made, details, pending)
            write(result, folder)
            table(work, plain, sides)
            equality = _equality(exact, plain, made, work, options.deviation_steps)
            write(replace(result, equality=equality), folder)
            details["second start: cached compile and warm-up (s)"] = _second_start(pipeline, work)
            write(replace(result, equality=equality, details=details), folder)
        if options.fast:
            mode = FastSettings(interval=options.fast_interval)
            with ours(pipeline, work, mode) as quick:
                sides["fast"] = fast = quick.run(jobs[:count], Path(name) / "fast")
            apart = {str(seed): relative(fast.latents[seed], made.latents[seed]) for seed in fast.latents}
            asked = f"{mode.asked(work.sample.steps)} of {work.sample.steps}"
            other = {
                "claim": "none: fast clips are other clips; benchmarks.generation_fast asks the oracle",
                "final latent against exact, mean relative": sum(apart.values()) / len(apart),
            }
            facts = {"mode": mode.describe(), "network asked at steps": asked}
            write(to_result("generation-fast", work, plain, fast, facts, other), folder)
    table(work, plain, sides)
    for key, value in {**details, **equality}.items():
        print(f"{key}: {value}")
    print(f"{clock.seconds:.0f} s in all; written to {folder}")


def _share(options: argparse.Namespace) -> float:
    """Of the time that is left, what ours and the comparisons need."""
    return 0.7 if options.fast else 0.6


def _affordable(exact: Ours, clock: Clock, clips: int, fast: bool) -> int:
    """Clips in whole batches, as many as were asked for and the time allows; at least one batch."""
    work = exact.work
    jobs = work.jobs(work.batch_size)
    embeds = exact.sampler.encode([job.prompt.text for job in jobs])
    begun = time.monotonic()
    exact.sampler.sample(embeds, [job.seed for job in jobs], steps=min(2, work.sample.steps))
    synchronize(work.device)
    batch = (time.monotonic() - begun) / min(2, work.sample.steps) * work.sample.steps * 1.1
    allowed = int((clock.left - _REST) / (batch * (1.6 if fast else 1.0)))
    wanted = max(1, clips // work.batch_size)
    if allowed < wanted:
        print(f"{clock.left:.0f} s left at {batch:.0f} s a batch: {max(1, allowed)} of {wanted} batches")
    return max(1, min(wanted, allowed)) * work.batch_size


def to_result(
    name: str,
    work: Workload,
    plain: Made,
    made: Made,
    details: Mapping[str, Any],
    equality: Mapping[str, Any],
) -> Result:
    """What both sides made, as a result file holds it."""
    memory = None
    if made.busy.peak_gib is not None and plain.busy.peak_gib is not None:
        memory = made.busy.peak_gib / plain.busy.peak_gib
    return Result(
        name=name,
        device=device_name(),
        plain=plain.an_hour,
        ours=made.an_hour,
        ratio=made.an_hour / plain.an_hour,
        unit="clips per GPU-hour, prompt to mp4 on disk",
        shape={**work.as_json(), "clips": made.clips, "plain clips": plain.clips},
        equality=equality,
        command=command_line(),
        versions=versions(*LIBRARIES),
        details={
            **details,
            "GPU busy share": {
                "plain": plain.busy.share or plain.busy.why,
                "ours": made.busy.share or made.busy.why,
            },
            "peak GiB": {"plain": plain.busy.peak_gib, "ours": made.busy.peak_gib},
            "seconds": {"plain": plain.seconds, "ours": made.seconds},
            "mp4 bytes a clip": {"plain": plain.bytes_a_clip, "ours": made.bytes_a_clip},
        },
        memory_ratio=memory,
    )  # fmt: skip


def table(work: Workload, plain: Made, sides: dict[str, Made]) -> None:
    """Print both sides, and any further one, beside each other."""
    rows = []
    for name, made in {"plain": plain, **sides}.items():
        busy, peak = made.busy.share, made.busy.peak_gib
        rows.append([
            name, str(made.clips), f"{made.seconds / made.clips:.2f}", f"{made.an_hour:.1f}",
            f"{made.an_hour / plain.an_hour:.2f}", f"{busy:.1%}" if busy is not None else made.busy.why,
            f"{peak:.1f}" if peak is not None else "-",
        ])  # fmt: skip
    show(
        f"Generation, {work.family}-{work.size} (random weights), {work.shape}, {work.sample.steps} steps",
        ["", "clips", "s a clip", "clips/GPU-h", "ratio", "GPU busy", "peak GiB"],
        rows,
    )


def _costs(exact: Ours, pipeline: Any, made: Made, plain: Made, work: Workload) -> dict[str, Any]:
    """Where the time goes: one batch decoded, one file encoded, and the rate of the denoising."""
    import numpy as np

    from data.video import encode_mp4

    latents = torch.stack(list(made.latents.values())[: work.batch_size]).to(work.device)
    synchronize(work.device)
    begun = time.monotonic()
    frames = exact.sampler.decode(latents)
    synchronize(work.device)
    decode = (time.monotonic() - begun) / len(latents)
    exact.family.decode(pipeline, latents[:1])
    synchronize(work.device)
    begun = time.monotonic()
    exact_frames = exact.family.decode(pipeline, latents[:1])
    synchronize(work.device)
    decode_float32 = time.monotonic() - begun
    begun = time.monotonic()
    encode_mp4(np.asarray(frames[0]), work.fps, exact.how.video)
    encode = time.monotonic() - begun
    found: dict[str, Any] = {
        "decode (s a clip, on the device)": round(decode, 3),
        "decode by the float32 VAE (s a clip)": round(decode_float32, 3),
        "frames of both VAEs, mean difference in levels of 255": round(
            float(np.abs(frames[0].astype(np.float32) - exact_frames[0].astype(np.float32)).mean()), 3
        ),
        "mp4 (s a clip, one core, beside the next batch)": round(encode, 3),
    }
    if work.family == "wan" and work.device.startswith("cuda"):
        passes = work.sample.steps * (2 if work.sample.guidance > 1 else 1)
        flops = passes * forward_flops(exact.sampler.pipeline.transformer.config, latents.shape[2:])
        ceiling = _ceiling()
        found["TFLOP/s over the whole run"] = {
            "plain": round(flops * plain.clips / plain.seconds / 1e12),
            "ours": round(flops * made.clips / made.seconds / 1e12),
            "matmul 8192 bf16, the measured ceiling": round(ceiling / 1e12),
        }
    return found


def forward_flops(config: Any, latent: torch.Size, text: int = 512) -> float:
    """Multiplications and additions of one Wan forward pass of one clip, norms and gates left out.

    Args:
        config: of the transformer.
        latent: (T, H, W) of the latent.
        text: tokens of the prompt.
    """
    width = config.num_attention_heads * config.attention_head_dim
    patch = config.patch_size
    tokens = (latent[0] // patch[0]) * (latent[1] // patch[1]) * (latent[2] // patch[2])
    projections = 2 * tokens * (6 * width**2 + 2 * width * config.ffn_dim) + 2 * text * 2 * width**2
    attention = 4 * tokens * (tokens + text) * width
    return float(config.num_layers * (projections + attention))


def _ceiling(size: int = 8192, repeats: int = 10) -> float:
    left, right = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        left @ right
    torch.cuda.synchronize()
    begun = time.monotonic()
    for _ in range(repeats):
        left @ right
    torch.cuda.synchronize()
    return 2 * size**3 * repeats / (time.monotonic() - begun)


def _equality(exact: Ours, plain: Made, made: Made, work: Workload, steps: int) -> dict[str, Any]:
    """Predictions on identical inputs, and how far final latents drift, beside how far batch sizes drift."""
    found: dict[str, Any] = {
        "prediction against eager, same inputs, relative": _predictions(exact, made, work),
        "prediction tolerance": PREDICTION_TOLERANCE,
        f"eager one by one against eager batch {work.batch_size}, the same way": _batch_effect(
            exact, made, work
        ),
    }
    both = [seed for seed in plain.latents if seed in made.latents]
    apart = [relative(made.latents[seed], plain.latents[seed]) for seed in both]
    found["final latent, ours against plain, relative, mean"] = sum(apart) / len(apart)
    found["final latent, ours against plain, relative, largest"] = max(apart)
    if steps:
        found[f"final latent after {steps} steps, relative"] = _deviation(exact, work, steps)
    found["within tolerance"] = (
        max(found["prediction against eager, same inputs, relative"].values()) <= PREDICTION_TOLERANCE
    )
    return found


@torch.no_grad()
def _predictions(exact: Ours, made: Made, work: Workload) -> dict[str, float]:
    family, sampler = exact.family, exact.sampler
    jobs = work.jobs(work.batch_size)
    embeds = sampler.encode([job.prompt.text for job in jobs])
    clean = torch.stack([made.latents[job.seed] for job in jobs]).to(work.device)
    noise = torch.randn(clean.shape, generator=torch.Generator("cpu").manual_seed(7)).to(work.device)
    found = {}
    for level in _SIGMAS:
        sigma = torch.full((len(clean),), level, device=work.device)
        noisy = family.parameterization.noisy(clean, noise, sigma)
        with preferred_attention(sampler.device):
            mine = family.predict(sampler.pipeline.transformer, noisy, sigma, embeds)
        eager = family.predict(sampler.source.transformer, noisy, sigma, embeds)
        found[f"sigma {level}"] = relative(mine, eager)
    return found


@torch.no_grad()
def _batch_effect(exact: Ours, made: Made, work: Workload) -> float:
    """The same distance between eager one by one and eager in a batch: what bfloat16 does by itself."""
    family, sampler = exact.family, exact.sampler
    jobs = work.jobs(work.batch_size)
    embeds = sampler.encode([job.prompt.text for job in jobs])
    clean = torch.stack([made.latents[job.seed] for job in jobs]).to(work.device)
    noise = torch.randn(clean.shape, generator=torch.Generator("cpu").manual_seed(7)).to(work.device)
    sigma = torch.full((len(clean),), _SIGMAS[1], device=work.device)
    inputs = (family.parameterization.noisy(clean, noise, sigma), sigma, embeds)
    network = sampler.source.transformer
    together = family.predict(network, *inputs)
    alone = [family.predict(network, *(part[i : i + 1] for part in inputs)) for i in range(len(clean))]
    return relative(torch.cat(alone), together)


def _deviation(exact: Ours, work: Workload, steps: int) -> dict[str, float]:
    """Against eager sampling one by one, which is what the plain way does."""
    sampler = exact.sampler
    eager = Sampler(
        exact.family, sampler.source, sampler.settings, texts=sampler.texts, residence=sampler.residence
    )
    jobs = work.jobs(work.batch_size)
    embeds = sampler.encode([job.prompt.text for job in jobs])
    seeds = [job.seed for job in jobs]
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
