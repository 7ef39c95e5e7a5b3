"""Peak memory of one generation batch: does a model fit an 80 GB card?

    python -m benchmarks.memory_generation --family wan --size 14b --batch-size 1
                                                                          results/memory-generation.json

A few steps hold the peak: denoising is the same at every step, and decoding comes once. The text encoder is
on the device while it works and away afterwards, as in the product; its own peak is reported apart.
"""

from __future__ import annotations

from typing import Final

import torch

from benchmarks.full_size import with_dtype
from benchmarks.result import RESULTS, command_line, device_name, show, versions
from benchmarks.workload import LIBRARIES, Clock, arguments, workload
from models.families import get_family
from models.sampling.sampler import Sampler
from models.settings import ModelSettings

CARD_GIB: Final = 80e9 / 2**30
# An 80 GB card shows about 79.2 GiB to programs, and the driver and CUDA take their share of it.
USABLE_GIB: Final = 78.0


def main() -> None:
    """See the module's docstring."""
    import json

    parser = arguments("peak memory of one generation batch")
    parser.set_defaults(size="14b", steps=3, batch_size=1)
    options = parser.parse_args()
    work, clock = workload(options), Clock()
    if not work.device.startswith("cuda"):
        parser.error("memory is measured on a GPU: --device cuda")
    pipeline = work.pipeline()
    pipeline.vae = with_dtype(pipeline.vae, getattr(torch, work.dtype))
    jobs = work.jobs(work.batch_size)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    built = torch.cuda.memory_allocated() / 2**30
    sampler = Sampler.on(
        get_family(work.family),
        pipeline,
        ModelSettings(work.family, "random weights", dtype=work.dtype, device=work.device),
        work.sample,
    )
    peaks: dict[str, float] = {"everything resident, idle": built}
    torch.cuda.reset_peak_memory_stats()
    embeds = sampler.encode([job.prompt.text for job in jobs])
    peaks["encoding the prompts"] = torch.cuda.max_memory_allocated() / 2**30
    peaks["text encoder away, idle"] = torch.cuda.memory_allocated() / 2**30
    torch.cuda.reset_peak_memory_stats()
    latents = sampler.sample(embeds, [job.seed for job in jobs])
    peaks["denoising"] = torch.cuda.max_memory_allocated() / 2**30
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    sampler.decode(latents)
    peaks["decoding"] = torch.cuda.max_memory_allocated() / 2**30
    peak = max(peaks.values())
    content = {
        "name": "memory-generation", "device": device_name(), "shape": work.as_json(), "peak GiB": peak,
        "fits 80 GB": peak <= USABLE_GIB, "peaks GiB": peaks, "command": command_line(),
        "versions": versions(*LIBRARIES),
    }  # fmt: skip
    folder = options.out or RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory-generation.json").write_text(json.dumps(content, indent=1) + "\n")
    show(
        f"Memory, {work.family}-{work.size}, {work.shape}, batch {work.batch_size}",
        ["", "GiB"],
        [[name, f"{value:.1f}"] for name, value in peaks.items()],
    )
    verdict = "fits" if peak <= USABLE_GIB else "does not fit"
    print(f"peak {peak:.1f} GiB: {verdict} an 80 GB card ({CARD_GIB:.1f} GiB); {clock.seconds:.0f} s")


if __name__ == "__main__":
    main()
