"""The loop that both training commands share, the arguments they take, and the card they leave behind."""

from __future__ import annotations

import argparse
import math
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import save_file

from data.device import resolve_device

_WARMUP: Final = 0.05
_REPORT_EVERY: Final = 5.0  # seconds
_IN_CARD: Final = ("device", "seconds", "steps", "seed", "clips", "batch", "lr")


@dataclass(frozen=True)
class Options:
    """What a training command was asked for; see `parse`."""

    device: str
    seconds: float
    steps: int | None
    seed: int
    clips: int
    batch: int
    lr: float
    measure: int
    out: Path
    command: str


@dataclass(frozen=True)
class Trained:
    """What a training command did: the loss of each step, and the quality of the files it saved."""

    losses: list[float]
    seconds: float
    quality: dict[str, float]


def parse(
    module: str,
    argv: list[str] | None,
    more: Mapping[str, Mapping[str, Any]] | None = None,
    **defaults: float,
) -> tuple[Options, dict[str, Any]]:
    """Command line of `python -m <module>`.

    Args:
        module: for the help, and for `Options.command`.
        argv: the words; None takes the process's own.
        more: further options of this command, with what `add_argument` is told of each.
        defaults: of --clips, --batch, --lr, --measure, and of others where they differ.

    Returns:
        What all commands are asked, and the values of `more`.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}", allow_abbrev=False, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for weights, config and card")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument("--seconds", type=float, default=75.0, help="training alone: no data, no measuring")
    parser.add_argument("--steps", type=int, help="stop after so many steps, if the time is not up first")
    parser.add_argument("--seed", type=int, default=0, help="of weights, data and batches")
    parser.add_argument("--clips", type=int, help="clips rendered to train on")
    parser.add_argument("--batch", type=int, help="of a training step")
    parser.add_argument("--lr", type=float, help="learning rate at its peak")
    parser.add_argument("--measure", type=int, help="clips to measure the saved files on")
    for name, how in (more or {}).items():
        parser.add_argument(f"--{name}", **how)
    parser.set_defaults(**defaults)
    given = vars(parser.parse_args(argv))
    for name in ("seconds", "clips", "batch", "lr", "measure"):
        if not given[name] > 0:
            parser.error(f"--{name} must be greater than 0")
    given["device"] = resolve_device(given["device"])
    named = (*_IN_CARD, *(more or {}))
    asked = [f"--{name} {given[name]}" for name in named if given[name] is not None]
    own = {name: given.pop(name) for name in more or {}}
    return Options(**given, command=" ".join([f"python -m {module}", *asked])), own


def show(figures: Mapping[str, float], meaning: Mapping[str, str]) -> None:
    """Print what was measured of saved files."""
    for name, value in figures.items():
        print(f"{name:48s} {value:8.4f}  {meaning[name]}")


def show_measured(
    module: str,
    argv: list[str] | None,
    measure: Callable[[Path, str, int], Mapping[str, float]],
    clips: int,
    meaning: Mapping[str, str],
) -> None:
    """The command `python -m <module> DIR`: measures the files in a folder."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--clips", type=int, default=clips)
    given = parser.parse_args(argv)
    show(measure(given.folder, given.device, given.clips), meaning)


def fit(
    model: torch.nn.Module, loss_of_batch: Callable[[], torch.Tensor], options: Options
) -> tuple[list[float], float]:
    """AdamW on `loss_of_batch` until the time or the steps are used up; returns (loss of each step, seconds).

    The learning rate warms up over 5% of the run and follows a cosine to zero, by the share of steps or of
    time used, whichever is further: so a run that is slower than hoped still ends with a learning rate of
    zero. Gradients are clipped to norm 1. On a GPU the loss is read back only for the progress line.
    """
    decay = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    rest = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [{"params": decay, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.99), fused=options.device.startswith("cuda"))
    losses: list[torch.Tensor] = []
    started = reported = time.monotonic()
    model.train()
    while True:
        now = time.monotonic()
        used = max((now - started) / options.seconds, len(losses) / options.steps if options.steps else 0.0)
        if used >= 1:
            break
        rate = options.lr * min(1.0, (used + 1e-3) / _WARMUP) * 0.5 * (1 + math.cos(math.pi * used))
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = loss_of_batch()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.detach())
        if now - reported > _REPORT_EVERY:
            reported = now
            print(f"{now - started:6.1f} s  step {len(losses):5d}  loss {float(losses[-1]):.4f}", flush=True)
    curve = [float(value) for value in torch.stack(losses).float().cpu()]
    elapsed = time.monotonic() - started
    model.eval()
    print(f"{elapsed:6.1f} s  step {len(curve):5d}  loss {curve[-1]:.4f}  (done)", flush=True)
    return curve, elapsed


def autocast(device: str) -> AbstractContextManager[None]:
    """bfloat16 matrix products on a GPU, float32 on a CPU."""
    if device.startswith("cuda"):
        return torch.autocast("cuda", torch.bfloat16)
    return nullcontext()


def millions(model: torch.nn.Module) -> float:
    """Parameters of a model, in millions."""
    return sum(parameter.numel() for parameter in model.parameters()) / 1e6


def save_half(model: torch.nn.Module, path: Path) -> int:
    """Writes the model's state as float16 safetensors; returns the file's size in bytes."""
    state = {
        name: (value.half() if value.is_floating_point() else value).detach().cpu().contiguous()
        for name, value in model.state_dict().items()
    }
    if not all(bool(torch.isfinite(value).all()) for value in state.values()):
        raise FloatingPointError("the trained weights are not all finite in 16 bit; lower the learning rate")
    save_file(state, path)
    return path.stat().st_size


def write_card(
    title: str, facts: Iterable[str], meaning: Mapping[str, str], run: Options, done: Trained
) -> None:
    """Writes CARD.md beside the weights: what they are, how they came about, how good these very files are.

    Args:
        title: heading.
        facts: lines on architecture and data.
        meaning: what each figure of `done.quality` says.
        run: what was asked for.
        done: what came of it.
    """
    device = torch.cuda.get_device_name() if run.device.startswith("cuda") else f"CPU, {platform.machine()}"
    parts = [part for part in np.array_split(done.losses, 10) if len(part)]
    lines = [
        f"# {title}",
        "",
        *(f"- {fact}" for fact in facts),
        f"- Command: `{run.command}`",
        f"- Seed {run.seed}; {len(done.losses)} steps in {done.seconds:.0f} s on {device}; "
        f"torch {torch.__version__}.",
        f"- Loss, mean of each tenth of the run: {', '.join(f'{part.mean():.3f}' for part in parts)}",
        "",
        "Measured on the saved 16-bit files, on clips rendered from a seed that no training uses:",
        "",
        "| figure | value | meaning |",
        "|---|---|---|",
        *(f"| {name} | {value:.4g} | {meaning[name]} |" for name, value in done.quality.items()),
        "",
    ]
    (run.out / "CARD.md").write_text("\n".join(lines), encoding="utf-8")
