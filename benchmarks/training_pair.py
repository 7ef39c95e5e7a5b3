"""A DPO step on one pair with a LoRA: ours against the plain way, in one process.

    PYTHONPATH=. python -m benchmarks.training_pair
    PYTHONPATH=. python -m benchmarks.training_pair --curves      the loss curves alone, with all memory
    PYTHONPATH=. python -m benchmarks.training_pair --curves --resume     what an ended run of it left undone

Plain is `benchmarks.training_plain`. Ours is the product's own `train`: stored latents, embeddings and
reference errors, compiled blocks, the fastest attention kernel, and no more recomputing than memory asks;
once held to 0.6 of the plain way's peak, and once with all the memory there is. The reference pass comes on
top and is measured with the product's `measure`; the ratio is given without it, and with it spread over
`--epochs`.

The loss curves of all runs start from one adapter and one table of draws. Whether they are alike:
`benchmarks.training_equality`.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.result import RESULTS, Result, command_line, device_name, show, versions, write
from benchmarks.training_curves import PLAIN_RUNS, curves, sides_of, stored
from benchmarks.training_equality import CONTROL_LR, equality, told
from benchmarks.training_parts import (
    Shape,
    ceiling,
    clip_flops,
    elapsed,
    network,
    ours,
    pairs_of,
    plan_of,
    reference_table,
    release,
)
from benchmarks.training_plain import Encoders, plain
from models.settings import FinetuneSettings

# Ours is held to this part of plain's peak; the target is 0.6.
_MEMORY: Final = 0.585
# Compiling, trials and library start-up end within these.
_WARM: Final = 3


def main(arguments: list[str] | None = None) -> Result:
    """Measure, print the table and write the result."""
    asked = _parse(arguments)
    began = time.monotonic()
    device = torch.device(asked.device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    shape = Shape(asked.size, asked.height, asked.width, asked.frames, asked.text_length, asked.layers)
    settings = FinetuneSettings(
        objective="dpo", beta=500.0, steps=asked.steps, batch_size=1, micro_batch=1, lr=asked.lr, warmup=5,
        schedule="constant", rank=asked.rank, alpha=float(asked.rank), shift=3.0, draws=asked.draws,
        reference_errors="stored", probe=0, seed=0, attention="default",
    )  # fmt: skip
    fast = dataclasses.replace(
        settings, compile=asked.compile, attention="fastest", gradient_checkpointing="auto"
    )
    if asked.curves:
        return curves(asked, shape, settings, fast, device, dtype)
    sides = sides_of(asked, "training-pair", shape, settings, fast)
    top = ceiling(device)
    _say(began, f"ceiling {top:.0f} TFLOP/s")

    encoders = Encoders(shape, 2 * asked.pairs, device, dtype, settings.seed)
    everything = torch.arange(2 * asked.pairs)
    data = pairs_of(
        encoders.latents(everything).cpu(), encoders.embeds(everything[: asked.pairs]).float().cpu()
    )
    before = plain(data, shape, settings, device, dtype, encoders)
    sides.keep("plain", before)
    _say(began, f"plain {before.step(_WARM):.3f} s a step")
    seconds = _encoding(encoders, device)
    del encoders

    release(device)
    table, reference = reference_table(data, shape, fast, device, dtype)
    _say(began, f"reference {reference:.4f} s a forward pass of a clip")
    budget = None if before.peak_bytes is None else _MEMORY * before.peak_bytes / 1e9
    tight, tight_facts = ours(data, shape, dataclasses.replace(fast, memory_gb=budget), table, device, dtype)
    sides.keep("ours", tight)
    _say(began, f"ours {tight.step(_WARM):.3f} s a step")
    free, free_facts = ours(data, shape, fast, table, device, dtype)
    sides.keep("ours, all memory", free)
    _say(began, f"ours, all memory {free.step(_WARM):.3f} s a step")

    faster = dataclasses.replace(fast, lr=CONTROL_LR * fast.lr)
    control, _ = ours(data, shape, faster, table, device, dtype)
    sides.keep("control", control)

    runs = [before.losses]
    for name, otherwise in PLAIN_RUNS.items():
        again = plain(
            data, shape, settings, device, dtype, stored(data, device), otherwise=otherwise,
            until=began + asked.seconds,
        )  # fmt: skip
        sides.keep(name, again)
        _say(began, f"{name}: {len(again.losses)} steps")
        runs.append(again.losses)
    # One that the clock cut short would shorten the comparison for all.
    whole = [losses for losses in runs if len(losses) == asked.steps]

    same = equality(
        whole if len(whole) > 1 else runs,
        {"ours": tight.losses, "ours_all_memory": free.losses},
        control.losses,
    )
    release(device)
    flops = clip_flops(network(shape, torch.device("meta"), dtype), shape)
    pair = 2 * (2 * flops["linear"] + 3.5 * flops["attention"])
    # Every pair visit of an epoch reads two stored errors; measuring all draws of both clips costs this once.
    share = 2 * asked.draws * reference / asked.epochs
    rows: dict[str, dict[str, Any]] = {}
    for name, run, facts in (
        ("plain", before, None),
        ("ours", tight, tight_facts),
        ("ours, all memory", free, free_facts),
    ):
        once = run.step(_WARM)
        rows[name] = {
            "seconds_a_step": once,
            "pair_steps_per_second": 1 / once,
            "ratio": before.step(_WARM) / once,
            "ratio_with_reference_pass": before.step(_WARM) / (once + (share if run is not before else 0.0)),
            "useful_tflops": pair / once / 1e12,
            "of_ceiling": pair / once / 1e12 / top,
            "peak_gb": None if run.peak_bytes is None else run.peak_bytes / 1e9,
            "memory_ratio": None
            if not (run.peak_bytes and before.peak_bytes)
            else run.peak_bytes / before.peak_bytes,
            "first_step_seconds": run.seconds[0],
            "plan": None if facts is None else plan_of(facts),
            # What the stored errors of the reference differ by from the policy's own before the first step.
            "logit_at_start": None if facts is None else facts.curve[0]["logit/max"],
            "losses": run.losses,
            "seconds": run.seconds,
        }
    best = rows["ours"]
    result = Result(
        name="training-pair",
        device=device_name(),
        plain=before.step(_WARM),
        ours=tight.step(_WARM),
        ratio=best["ratio"],
        unit="seconds a step of one pair",
        shape={**dataclasses.asdict(shape), "tokens": shape.tokens, "rank": asked.rank, "pairs": asked.pairs,
               "steps": asked.steps, "draws": asked.draws, "epochs": asked.epochs, "dtype": str(dtype)},
        equality=same,
        command=command_line(),
        versions=versions("torch", "diffusers", "peft", "transformers"),
        details={
            "runs": rows,
            "ceiling_tflops": top,
            "reference_seconds_a_clip_and_draw": reference,
            "epochs_from_which_storing_pays": asked.draws,
            "losses_of_plain_again": runs[1:],
            "losses_of_the_control": control.losses,
            "plain_encoding_seconds": seconds,
            "seconds_in_all": time.monotonic() - began,
        },
        memory_ratio=best["memory_ratio"],
    )  # fmt: skip
    write(result, Path(asked.results))
    _print(result)
    return result


def _encoding(encoders: Encoders, device: torch.device) -> dict[str, float]:
    """Seconds that a plain step spends on the text and on the two videos of its pair."""
    pair = torch.arange(2)
    return {
        "text": elapsed(lambda: encoders.embeds(pair[:1]), device),
        "video": elapsed(lambda: encoders.latents(pair), device),
    }


def _print(result: Result) -> None:
    lines = []
    for name, run in result.details["runs"].items():
        memory = "-" if run["peak_gb"] is None else f"{run['peak_gb']:.1f} GB"
        part = "-" if run["memory_ratio"] is None else f"{run['memory_ratio']:.2f}"
        plan = run["plan"]
        kept = "-" if plan is None else f"{plan['kept']}{'' if plan['attention'] else ' (others nothing)'}"
        lines.append([
            name, f"{run['seconds_a_step']:.3f}", f"{run['ratio']:.2f}",
            f"{run['ratio_with_reference_pass']:.2f}", memory, part,
            f"{run['useful_tflops']:.0f}", f"{100 * run['of_ceiling']:.0f}%",
            f"{run['first_step_seconds']:.1f}", kept,
        ])  # fmt: skip
    shape, facts, same = result.shape, result.details, result.equality
    show(
        f"DPO pair step, Wan2.1 {shape['size']} {shape['height']}x{shape['width']}x{shape['frames']}, "
        f"LoRA r{shape['rank']}, {result.device}",
        ["", "s/step", "ratio", f"with reference / {shape['epochs']} epochs", "peak", "of plain", "TFLOP/s",
        "of ceiling", "first s", "blocks kept"], lines,
    )  # fmt: skip
    print(
        f"ceiling {facts['ceiling_tflops']:.0f} TFLOP/s; reference pass "
        f"{facts['reference_seconds_a_clip_and_draw']:.3f} s a clip and draw ({shape['draws']} draws); "
        f"plain encodes text in {facts['plain_encoding_seconds']['text']:.3f} s, video in "
        f"{facts['plain_encoding_seconds']['video']:.3f} s a step"
    )
    print(told(same))
    print(f"{facts['seconds_in_all']:.0f} s in all")


def _say(began: float, what: str) -> None:
    print(f"[{time.monotonic() - began:5.0f} s] {what}", flush=True)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="1.3b", help="of benchmarks.full_size, family wan")
    parser.add_argument("--layers", type=int, default=None, help="blocks of the network; default: all")
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=832)
    parser.add_argument("--frames", type=int, default=33)
    parser.add_argument("--text-length", type=int, default=512)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=4, help="that the runs learn from")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument(
        "--draws", type=int, default=8, help="fixed draws a prompt, of the stored reference errors"
    )
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--epochs", type=int, default=20, help="over which the reference pass is spread")
    parser.add_argument(
        "--seconds", type=float, default=450,
        help="the last plain runs are cut short to keep to it; of --curves, any run",
    )  # fmt: skip
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--curves", action="store_true", help="compare loss curves, and nothing else")
    parser.add_argument(
        "--resume", action="store_true", help="of --curves: take up the sides that lie in --results"
    )
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--results", default=str(RESULTS))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
