"""LoRA training on two GPUs of one host against one: the same batches, the same adapter, more steps a second.

    PYTHONPATH=. NCCL_NVLS_ENABLE=0 python -m benchmarks.training_two_gpus

One process, two, and one again, all started alike (`models.launch`), each building the same random network
and calling the product's `train`. Compared: seconds a step without the first ones (which compile), the loss
of every step, and the adapters at the end, relative to how far they went from their start. One process
against itself shows what the GPU's own order of sums does.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, Final

import torch

from benchmarks.result import RESULTS, Result, command_line, device_name, show, versions, write
from benchmarks.training_parts import BASE, Shape, network, pairs_of
from models import lora
from models.families import get_family
from models.launch import run_together
from models.settings import FinetuneSettings
from models.team import joined
from models.trainer import train

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
    runs: dict[str, dict[str, Any]] = {}
    for name, processes in (("one", 1), ("many", asked.processes), ("again", 1)):
        with tempfile.TemporaryDirectory(prefix="vidloop-two-") as folder:
            command = ("-m", "benchmarks.training_two_gpus", *(arguments or sys.argv[1:]), "--child", folder)
            run_together(command, processes, Path(folder))
            runs[name] = json.loads((Path(folder) / "run.json").read_text())
            adapter = lora.read((Path(folder) / "adapter.safetensors").read_bytes()).tensors
            # B starts at zero, so it is how far training went.
            runs[name]["way"] = torch.cat(
                [adapter[key].flatten() for key in sorted(adapter) if ".lora_B." in key]
            )
        seconds = ", ".join(f"{value:.2f}" for value in runs[name]["seconds"])
        print(f"[{time.monotonic() - began:5.0f} s] {processes} processes: {seconds} s", flush=True)
    one, many = runs["one"], runs["many"]
    apart, noise = _apart(one, many), _apart(one, runs["again"])
    allowed = {key: min(_CEILING, max(_FLOOR, _NOISES * value)) for key, value in noise.items()}
    plain, ours = (median(run["seconds"][_WARM:]) for run in (one, many))
    result = Result(
        name="training-two-gpus",
        device=device_name(),
        plain=plain,
        ours=ours,
        ratio=plain / ours,
        unit=f"seconds a step of {asked.pairs_a_step} pairs",
        shape={key: value for key, value in vars(asked).items() if key not in ("child", "results")},
        equality={
            "apart": apart, "one_process_with_itself": noise, "allowed": allowed,
            "ok": all(apart[key] <= allowed[key] for key in apart),
        },
        command=command_line(),
        versions=versions("torch", "diffusers", "peft"),
        details={
            name: {key: value for key, value in run.items() if key != "way"} for name, run in runs.items()
        },
    )  # fmt: skip
    write(result, Path(asked.results))
    show(
        f"DPO steps of {asked.pairs_a_step} pairs, Wan2.1 {asked.size} "
        f"{asked.height}x{asked.width}x{asked.frames}, {result.device}",
        ["processes", "s/step", "ratio", "efficiency", "first s"],
        [
            ["1", f"{plain:.3f}", "1.00", "100%", f"{one['seconds'][0]:.1f}"],
            [str(asked.processes), f"{ours:.3f}", f"{result.ratio:.2f}",
             f"{100 * result.ratio / asked.processes:.0f}%", f"{many['seconds'][0]:.1f}"],
        ],
    )  # fmt: skip
    same = "equal" if result.equality["ok"] else "NOT EQUAL"
    for key, value in apart.items():
        print(
            f"{key}: {value:.1e} apart, one process with itself {noise[key]:.1e}, allowed {allowed[key]:.1e}"
        )
    print(same)
    return result


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
        result = train(transformer, get_family("wan"), data, settings, BASE, on_step=on_step, team=team)
        if team.leads:
            (folder / "adapter.safetensors").write_bytes(result.adapter)
            plan = result.diagnostics.get("memory_plan")
            (folder / "run.json").write_text(json.dumps({"seconds": seconds, "losses": losses, "plan": plan}))


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
