"""LoRA training on two GPUs of one host against one: the same batches, the same adapter, more steps a second.

    PYTHONPATH=. NCCL_NVLS_ENABLE=0 python -m benchmarks.training_two_gpus

First a process on each GPU, side by side, both doing the whole work; then one team of two. All are started
alike (`models.training.launch`), build the same random network and call the product's `train`. Compared:
seconds a
step without the first ones (which compile), the loss of every step, and the adapters at the end, relative to
how far they went from their start. What one GPU differs from the other shows what orders of sums do, and how
much faster one card is than the other: two cards of a host need not be alike, and a team goes at the pace of
its slower one. The second start of the same program tells what is left of the first step's compiling.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any, Final

import torch

from benchmarks.result import RESULTS, Result, command_line, device_name, show, versions, write
from benchmarks.training_parts import BASE, Shape, network, pairs_of, synchronize
from models import lora
from models.families import get_family
from models.settings import FinetuneSettings
from models.training.distributed import joined
from models.training.launch import run_together
from models.training.trainer import train
from tasks import spread
from tasks.worker_pool import DEVICES

_WARM: Final = 2
# Two processes may differ from one by so many times what one differs from itself, or by what float32 rounds.
_NOISES: Final = 3.0
_FLOOR: Final = 1e-4
# Adapters further apart than this part of their way are not equal, whatever the noise.
_CEILING: Final = 0.3


def main(arguments: list[str] | None = None) -> Result | None:
    """Measure, print the table and write the result; as a child, train."""
    asked = _parse(arguments)
    if asked.child is not None:
        _work(asked, Path(asked.child))
        return None
    began = time.monotonic()
    words = arguments if arguments is not None else sys.argv[1:]
    with ThreadPoolExecutor(asked.processes) as pool:
        alone = list(pool.map(lambda card: _run(words, 1, card), range(asked.processes)))
    for card, run in enumerate(alone):
        _say(began, f"GPU {card} alone", run)
    many = _run(words, asked.processes)
    _say(began, f"a team of {asked.processes}", many)
    one, again = alone[:2]
    apart, noise = _apart(one, many), _apart(one, again)
    allowed = {key: min(_CEILING, max(_FLOOR, _NOISES * value)) for key, value in noise.items()}
    singles = [median(run["seconds"][_WARM:]) for run in alone]
    # Of a step on one GPU, whichever it is: the mean of their speeds.
    plain, ours = len(singles) / sum(1 / single for single in singles), median(many["seconds"][_WARM:])
    result = Result(
        name="training-two-gpus",
        device=device_name(),
        plain=plain,
        ours=ours,
        ratio=plain / ours,
        unit=f"seconds a step of {asked.pairs_a_step} pairs",
        shape={key: value for key, value in vars(asked).items() if key not in ("child", "results")},
        equality={
            "apart": apart, "one_gpu_from_the_other": noise, "allowed": allowed,
            "ok": all(apart[key] <= allowed[key] for key in apart),
        },
        command=command_line(),
        versions=versions("torch", "diffusers", "peft"),
        details={
            name: {key: value for key, value in run.items() if key != "way"}
            for name, run in {**{f"GPU {i} alone": run for i, run in enumerate(alone)}, "team": many}.items()
        },
    )  # fmt: skip
    write(result, Path(asked.results))
    show(
        f"DPO steps of {asked.pairs_a_step} pairs, Wan2.1 {asked.size} "
        f"{asked.height}x{asked.width}x{asked.frames}, {result.device}",
        ["processes", "s/step", "ratio", "efficiency", "first s"],
        [
            *(
                [f"1 (GPU {card})", f"{single:.3f}", f"{plain / single:.2f}", "", f"{run['seconds'][0]:.1f}"]
                for card, (single, run) in enumerate(zip(singles, alone, strict=True))
            ),
            [str(asked.processes), f"{ours:.3f}", f"{result.ratio:.2f}",
             f"{100 * result.ratio / asked.processes:.0f}%", f"{many['seconds'][0]:.1f}"],
        ],
    )  # fmt: skip
    same = "equal" if result.equality["ok"] else "NOT EQUAL"
    for key, value in apart.items():
        print(
            f"{key}: {value:.1e} apart, one GPU from the other {noise[key]:.1e}, allowed {allowed[key]:.1e}"
        )
    print(same)
    return result


def _run(words: Sequence[str], processes: int, card: int | None = None) -> dict[str, Any]:
    """Train in `processes` processes, on GPU `card` where one is named; what they wrote."""
    with tempfile.TemporaryDirectory(prefix="vidloop-two-") as folder:
        place = {} if card is None or not torch.cuda.is_available() else {DEVICES: spread.visible()[card]}
        command = ("-m", "benchmarks.training_two_gpus", *words, "--child", folder)
        run_together(command, processes, Path(folder), variables=place)
        run: dict[str, Any] = json.loads((Path(folder) / "run.json").read_text())
        adapter = lora.read((Path(folder) / "adapter.safetensors").read_bytes()).tensors
    # B starts at zero, so it is how far training went.
    run["way"] = torch.cat([adapter[key].flatten() for key in sorted(adapter) if ".lora_B." in key])
    return run


def _say(began: float, who: str, run: dict[str, Any]) -> None:
    seconds = ", ".join(f"{value:.2f}" for value in run["seconds"])
    print(
        f"[{time.monotonic() - began:5.0f} s] {who}: {seconds} s; built in {run['build']:.1f} s, "
        f"compile caches {run['cache']}",
        flush=True,
    )


def _apart(left: dict[str, Any], right: dict[str, Any]) -> dict[str, float]:
    """Relative differences: the largest of a step's loss, and of the ways that the two adapters went."""
    losses = zip(right["losses"], left["losses"], strict=True)
    return {
        "loss": max(abs(a - b) / abs(b) for a, b in losses),
        "adapter": float((right["way"] - left["way"]).norm() / left["way"].norm()),
    }


def _work(asked: argparse.Namespace, folder: Path) -> None:
    shape = Shape(asked.size, asked.height, asked.width, asked.frames, asked.text_length, asked.layers)
    settings = FinetuneSettings(
        objective="dpo", beta=500.0, steps=asked.steps, batch_size=asked.pairs_a_step, micro_batch=1, lr=1e-4,
        warmup=5, schedule="constant", rank=asked.rank, alpha=float(asked.rank), shift=3.0, draws=4, probe=0,
        compile=asked.compile, gradient_checkpointing="auto",
    )  # fmt: skip
    draw = torch.Generator().manual_seed(0)
    pairs = 2 * asked.pairs_a_step
    text = 32 if asked.size == "tiny" else 4096
    data = pairs_of(
        torch.randn(2 * pairs, *shape.latent, generator=draw),
        torch.randn(pairs, shape.text_length, text, generator=draw),
    )
    with joined(asked.device) as (team, device):
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        seconds: list[float] = []
        losses: list[float] = []
        start = time.perf_counter()

        def on_step(entry: dict[str, float]) -> None:
            nonlocal start
            now = time.perf_counter()
            seconds.append(now - start)
            losses.append(entry["loss"])
            start = now

        transformer = network(shape, device, dtype)
        synchronize(device)
        start, build = time.perf_counter(), time.perf_counter() - start
        result = train(transformer, get_family("wan"), data, settings, BASE, on_step=on_step, team=team)
        if team.leads:
            (folder / "adapter.safetensors").write_bytes(result.adapter)
            plan = result.diagnostics.get("memory_plan")
            found = {"seconds": seconds, "losses": losses, "plan": plan, "build": build, "cache": _cache()}
            (folder / "run.json").write_text(json.dumps(found))


def _cache() -> dict[str, int]:
    """How often torch.compile found its kernels on disk, by the names that PyTorch counts them under."""
    from torch._dynamo.utils import counters

    found = {**counters["inductor"], **counters["aot_autograd"]}
    return {name: int(count) for name, count in found.items() if "cache" in name}


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--pairs-a-step", type=int, default=8)
    parser.add_argument("--size", default="1.3b", help="of benchmarks.full_size, family wan")
    parser.add_argument("--layers", type=int, default=None, help="blocks of the network; default: all")
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=832)
    parser.add_argument("--frames", type=int, default=33)
    parser.add_argument("--text-length", type=int, default=512)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--results", default=str(RESULTS))
    parser.add_argument("--child", default=None, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
