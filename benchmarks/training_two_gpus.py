"""LoRA training on two GPUs of one host against one: the same batches, the same adapter, more steps a second.

    NCCL_NVLS_ENABLE=0 python -m benchmarks.training_two_gpus

First a process on each GPU, side by side, both doing the whole work; then one group of two. All are started
alike (`models.training.distributed`), build the same random network and call the product's `train`. Compared:
seconds a step without the first ones (which compile), the loss of every step, and the adapters at the end,
relative to how far they went from their start. What one GPU differs from the other shows what orders of sums
do, and how much faster one card is than the other: two cards of a host need not be alike, and a group goes at
the pace of its slower one. The second start of the same program tells what is left of the first step's
compiling.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from statistics import harmonic_mean, median
from typing import Any, Final

import torch

from benchmarks.harness import Clock, Result, options, relative, synchronize, write
from benchmarks.training_sides import BASE, shape_of, shape_options
from models import lora
from models.families import get_family
from models.training.distributed import launch_processes, process_group
from models.training.settings import TrainSettings
from models.training.trainer import TrainJob, train
from tasks import spread
from tasks.worker_pool import DEVICES

_WARM: Final = 2
# Two processes may differ from one by so many times what one differs from itself, or by what float32 rounds.
_NOISES: Final = 3.0
_FLOOR: Final = 1e-4
# Adapters further apart than this part of their way are not equal, whatever the noise.
_CEILING: Final = 0.3

Run = dict[str, Any]


def main(arguments: list[str] | None = None) -> Result | None:
    """Measure, print the table and write the result; as a child, train."""
    asked = _parse(arguments)
    if asked.child is not None:
        _work(asked, Path(asked.child))
        return None
    clock = Clock()
    words = arguments if arguments is not None else sys.argv[1:]
    with ThreadPoolExecutor(asked.processes) as pool:
        alone = list(pool.map(lambda card: _run(words, 1, card), range(asked.processes)))
    many = _run(words, asked.processes)
    named = {**{f"GPU {card} alone": run for card, run in enumerate(alone)}, "group": many}
    for name, run in named.items():
        seconds = ", ".join(f"{value:.2f}" for value in run["seconds"])
        clock.say(f"{name}: {seconds} s; built in {run['build']:.1f} s, compile caches {run['cache']}")
    apart, noise = _apart(alone[0], many), _apart(alone[0], alone[1])
    allowed = {key: min(_CEILING, max(_FLOOR, _NOISES * value)) for key, value in noise.items()}
    singles = [median(run["seconds"][_WARM:]) for run in alone]
    same = all(apart[key] <= allowed[key] for key in apart)
    result = Result(
        "training-two-gpus",
        # Of a step on one GPU, whichever it is: the mean of their speeds.
        harmonic_mean(singles),
        median(many["seconds"][_WARM:]),
        f"seconds a step of {asked.pairs_a_step} pairs",
        more_is_better=False,
        libraries=("torch", "diffusers", "peft"),
        shape={key: value for key, value in vars(asked).items() if key not in ("child", "out")},
        equality={"apart": apart, "one_gpu_from_the_other": noise, "allowed": allowed, "ok": same},
        details={
            name: {key: value for key, value in run.items() if key != "way"} for name, run in named.items()
        },
    )
    write(result, asked.out)
    return result


def _run(words: Sequence[str], processes: int, card: int | None = None) -> Run:
    """Train in `processes` processes, on GPU `card` where one is named; what they wrote."""
    with tempfile.TemporaryDirectory(prefix="vidloop-two-") as folder:
        place = {} if card is None or not torch.cuda.is_available() else {DEVICES: spread.visible()[card]}
        command = ("-m", "benchmarks.training_two_gpus", *words, "--child", folder)
        launch_processes(command, processes, Path(folder), variables=place)
        run: Run = json.loads((Path(folder) / "run.json").read_text())
        adapter = lora.read((Path(folder) / "adapter.safetensors").read_bytes()).tensors
    # B starts at zero, so it is how far training went.
    run["way"] = torch.cat([adapter[key].flatten() for key in sorted(adapter) if ".lora_B." in key])
    return run


def _apart(left: Run, right: Run) -> dict[str, float]:
    """Relative differences: the largest of a step's loss, and of the ways that the two adapters went."""
    losses = zip(right["losses"], left["losses"], strict=True)
    return {
        "loss": max(abs(a - b) / abs(b) for a, b in losses),
        "adapter": relative(right["way"], left["way"]),
    }


def _work(asked: argparse.Namespace, folder: Path) -> None:
    shape = shape_of(asked)
    settings = TrainSettings(
        objective="dpo", beta=500.0, steps=asked.steps, batch_size=asked.pairs_a_step, micro_batch=1, lr=1e-4,
        warmup=5, schedule="constant", rank=asked.rank, alpha=float(asked.rank), shift=3.0,
        fixed_noise_samples=4, probe=0,
        compile=asked.compile, gradient_checkpointing="auto",
    )  # fmt: skip
    data = shape.pairs(2 * asked.pairs_a_step)
    with process_group(asked.device) as (group, device):
        begun = time.perf_counter()
        transformer = shape.network(device, torch.bfloat16 if device.type == "cuda" else torch.float32)
        synchronize(device)
        ends, losses = [time.perf_counter()], list[float]()

        def on_step(entry: dict[str, float]) -> None:
            ends.append(time.perf_counter())
            losses.append(entry["loss"])

        result = train(transformer, get_family("wan"), TrainJob(data, settings, BASE), on_step, group=group)
        if group.rank == 0:
            (folder / "adapter.safetensors").write_bytes(result.adapter)
            found = {
                "seconds": [end - start for start, end in pairwise(ends)],
                "losses": losses, "plan": result.diagnostics.get("memory_plan"),
                "build": ends[0] - begun, "cache": _cache(),
            }  # fmt: skip
            (folder / "run.json").write_text(json.dumps(found))


def _cache() -> dict[str, int]:
    """How often torch.compile found its kernels on disk, by the names that PyTorch counts them under."""
    from torch._dynamo.utils import counters

    found = {**counters["inductor"], **counters["aot_autograd"]}
    return {name: int(count) for name, count in found.items() if "cache" in name}


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = options(__doc__)
    shape_options(parser)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--pairs-a-step", type=int, default=8)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--child", default=None, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
