"""A DPO step with a LoRA on a card of 80 GB: what Wan2.1 14B at 480x832x33 takes of its memory.

    PYTHONPATH=. python -m benchmarks.memory_training --size 14b --card-gb 80

The product's own `train` on random weights and latents (stored errors measured first), twice: every block
recomputed, and as little recomputed as the card's memory asks. Nothing else is on the GPU: weights, adapter,
optimiser and activations are what is counted.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path
from typing import Any, Final, Literal

import torch

from benchmarks.result import RESULTS, Result, command_line, device_name, show, versions, write
from benchmarks.training_parts import Shape, ours, pairs_of, plan_of, reference_table, release
from models.settings import FinetuneSettings

# Of a card: what the driver, the libraries' own memory and the holes between tensors take of it.
_USABLE: Final = 0.94


def main(arguments: list[str] | None = None) -> Result:
    """Measure, print the table and write the result."""
    asked = _parse(arguments)
    began = time.monotonic()
    device = torch.device(asked.device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    shape = Shape(asked.size, asked.height, asked.width, asked.frames, asked.text_length, asked.layers)
    room = _USABLE * asked.card_gb
    settings = FinetuneSettings(
        objective="dpo", steps=asked.steps, batch_size=1, micro_batch=1, rank=asked.rank,
        alpha=float(asked.rank), shift=3.0, draws=2, reference_errors="stored", probe=0,
        compile=asked.compile, gradient_checkpointing=True, memory_gb=room,
    )  # fmt: skip
    draw = torch.Generator().manual_seed(0)
    text = 32 if asked.size == "tiny" else 4096
    data = pairs_of(
        torch.randn(2, *shape.latent, generator=draw), torch.randn(1, shape.text_length, text, generator=draw)
    )
    table, _ = reference_table(data, shape, settings, device, dtype)
    rows: dict[str, dict[str, Any]] = {}
    ways: dict[str, Literal[True, "auto"]] = {
        "every block recomputed": True,
        f"as the {asked.card_gb:.0f} GB card allows": "auto",
    }
    for name, how in ways.items():
        release(device)
        run, result = ours(
            data, shape, dataclasses.replace(settings, gradient_checkpointing=how), table, device, dtype
        )
        rows[name] = {
            "peak_gb": None if run.peak_bytes is None else run.peak_bytes / 1e9,
            "fits": None if run.peak_bytes is None else run.peak_bytes / 1e9 <= room,
            "seconds_a_step": run.step(min(2, asked.steps - 1)),
            "first_step_seconds": run.seconds[0],
            "plan": plan_of(result),
            "losses": run.losses,
        }
        print(f"[{time.monotonic() - began:5.0f} s] {name}: {rows[name]['peak_gb']} GB", flush=True)
        del run, result
    least, most = rows.values()
    outcome = Result(
        name="memory-training",
        device=device_name(),
        plain=least["seconds_a_step"],
        ours=most["seconds_a_step"],
        ratio=least["seconds_a_step"] / most["seconds_a_step"],
        unit="seconds a step of one pair, recomputing every block against what the card allows",
        shape={**dataclasses.asdict(shape), "tokens": shape.tokens, "rank": asked.rank,
               "card_gb": asked.card_gb, "usable_gb": room, "dtype": str(dtype)},
        equality={"losses": {name: row["losses"] for name, row in rows.items()}},
        command=command_line(),
        versions=versions("torch", "diffusers", "peft"),
        details={"runs": rows, "seconds_in_all": time.monotonic() - began},
    )  # fmt: skip
    write(outcome, Path(asked.results))
    show(
        f"DPO pair step, Wan2.1 {asked.size} {asked.height}x{asked.width}x{asked.frames}, "
        f"LoRA r{asked.rank}, {outcome.device}",
        ["", "peak GB", f"within {room:.0f} GB", "s/step", "first s", "blocks kept"],
        [
            [
                name, "-" if row["peak_gb"] is None else f"{row['peak_gb']:.1f}", str(row["fits"]),
                f"{row['seconds_a_step']:.2f}", f"{row['first_step_seconds']:.1f}",
                "-" if row["plan"] is None else str(row["plan"]["kept"]),
            ]
            for name, row in rows.items()
        ],
    )  # fmt: skip
    return outcome


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="14b", help="of benchmarks.full_size, family wan")
    parser.add_argument("--layers", type=int, default=None, help="blocks of the network; default: all")
    parser.add_argument("--card-gb", type=float, default=80.0, help="memory of the card, in 1e9 bytes")
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=832)
    parser.add_argument("--frames", type=int, default=33)
    parser.add_argument("--text-length", type=int, default=512)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--results", default=str(RESULTS))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
