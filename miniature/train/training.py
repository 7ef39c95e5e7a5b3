"""What the training commands share: the arguments they take, the loop, and how they end."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import save_file

from data.device import resolve_device
from miniature.train.card import write_card

Rate = Callable[[int, float], float]
"""The learning rate at a step (from 0), when a share of the run is used."""

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
    """Command line of `python -m <module>`; the folder is made, and torch's seed is set.

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
    given["out"].mkdir(parents=True, exist_ok=True)
    torch.manual_seed(given["seed"])
    named = (*_IN_CARD, *(more or {}))
    asked = [f"--{name} {given[name]}" for name in named if given[name] is not None]
    own = {name: given.pop(name) for name in more or {}}
    return Options(**given, command=" ".join([f"python -m {module}", *asked])), own


def show(figures: Mapping[str, float], meaning: Mapping[str, str]) -> None:
    """Print what was measured of saved files."""
    for name, value in figures.items():
        print(f"{name:48s} {value:8.4f}  {meaning[name]}")


def cosine(peak: float) -> Rate:
    """Learning rates that warm up over 5% of the run and follow a cosine to zero."""
    return lambda step, used: peak * min(1.0, (used + 1e-3) / _WARMUP) * 0.5 * (1 + math.cos(math.pi * used))


def fit(
    model: torch.nn.Module,
    loss_of_batch: Callable[[], torch.Tensor],
    rate: Rate,
    seconds: float,
    steps: int | None,
    weight_decay: float = 0.01,
    say: Callable[[str], None] = print,
) -> tuple[list[float], float]:
    """AdamW on `loss_of_batch` until the time or the steps are used up; returns (loss of each step, seconds).

    The learning rate goes by the share of steps or of time used, whichever is further: so a run that is
    slower than hoped still ends as it should. The first step, which may compile, is no part of the time.
    Matrices alone are subject to weight decay; gradients are clipped to norm 1. On a GPU the loss is read
    back only for the progress line.
    """
    decay = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    rest = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [{"params": decay, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.99), fused=decay[0].is_cuda)
    losses: list[torch.Tensor] = []
    started = reported = time.monotonic()
    model.train()
    while True:
        now = time.monotonic()
        if len(losses) == 1:
            started = now
        used = max((now - started) / seconds, len(losses) / steps if steps else 0.0)
        if used >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = rate(len(losses), used)
        loss = loss_of_batch()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.detach())
        if now - reported > _REPORT_EVERY:
            reported = now
            say(f"{now - started:6.1f} s  step {len(losses):5d}  loss {float(losses[-1]):.4f}")
    curve = [float(value) for value in torch.stack(losses).float().cpu()]
    elapsed = time.monotonic() - started
    model.eval()
    say(f"{elapsed:6.1f} s  step {len(curve):5d}  loss {curve[-1]:.4f}  (done)")
    return curve, elapsed


def autocast(device: str) -> AbstractContextManager[None]:
    """bfloat16 matrix products on a GPU, float32 on a CPU."""
    if device.startswith("cuda"):
        return torch.autocast("cuda", torch.bfloat16)
    return nullcontext()


def save_half(model: torch.nn.Module, path: Path) -> str:
    """Writes the model's state as float16 safetensors; returns its size, for the card."""
    state = {
        name: (value.half() if value.is_floating_point() else value).detach().cpu().contiguous()
        for name, value in model.state_dict().items()
    }
    if not all(bool(torch.isfinite(value).all()) for value in state.values()):
        raise FloatingPointError("the trained weights are not all finite in 16 bit; lower the learning rate")
    save_file(state, path)
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    return f"{millions:.2f} M parameters, {path.stat().st_size / 1e6:.2f} MB of float16"


def finish(
    title: str,
    facts: Sequence[str],
    meaning: Mapping[str, str],
    run: Options,
    done: tuple[list[float], float],
    quality: dict[str, float],
) -> Trained:
    """Writes the card beside the weights, and prints what was measured of the saved files.

    Args:
        title: heading.
        facts: lines on architecture and data.
        meaning: what each figure of `quality` says.
        run: what was asked for.
        done: what `fit` returned.
        quality: figures of the saved files.
    """
    losses, seconds = done
    parts = [part for part in np.array_split(losses, 10) if len(part)]
    lines = [
        *facts,
        f"Seed {run.seed}; {len(losses)} steps in {seconds:.0f} s.",
        f"Loss, mean of each tenth of the run: {', '.join(f'{part.mean():.3f}' for part in parts)}",
    ]
    heading = "Measured on the saved 16-bit files, on clips rendered from a seed that no training uses"
    write_card(run.out, title, run.command, lines, {heading: quality}, meaning)
    show(quality, meaning)
    return Trained(losses, seconds, quality)
