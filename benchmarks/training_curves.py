"""The loss curves alone, from stored inputs: ours, the plain way several times, and the control.

Encoding in the loop gives the plain way the same inputs at every visit, so it is left out here.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Final

import torch

from benchmarks.result import Result, command_line, device_name, versions, write
from benchmarks.training_equality import CONTROL_LR, equality, told
from benchmarks.training_parts import OutOfTimeError, Shape, Timed, ours, pairs_of, reference_table
from benchmarks.training_plain import Encode, plain
from benchmarks.training_sides import Sides
from models.settings import FinetuneSettings
from models.training.reference import ErrorTable
from models.training.train_data import TrainData

PLAIN_RUNS: Final = {"plain, again": False, "plain, other kernel": True, "plain, a third time": False}
"""The plain runs beside the timed one, and whether attention is another kernel's. Alike but for rounding: the
same kernel again rounds otherwise too, on a GPU, where its sums have no fixed order."""
# Compiling, trials and library start-up end within these steps.
_WARM: Final = 3


def curves(
    asked: argparse.Namespace,
    shape: Shape,
    settings: FinetuneSettings,
    fast: FinetuneSettings,
    device: torch.device,
    dtype: torch.dtype,
) -> Result:
    """Measure, print a line and write the result.

    Ours is first, since it takes longest, and each run is written when it is there. Each has an equal share
    of what is left of `--seconds`; one that needs more is cut short, and the curves are compared over the
    steps that all of them have (at least one).
    """
    began = time.monotonic()
    draw = torch.Generator().manual_seed(settings.seed)
    width = 32 if asked.size == "tiny" else 4096
    data = pairs_of(
        torch.randn(2 * asked.pairs, *shape.latent, generator=draw),
        torch.randn(asked.pairs, shape.text_length, width, generator=draw),
    )
    sides = sides_of(asked, "training-pair-curves", shape, settings, fast)
    faster = dataclasses.replace(fast, lr=CONTROL_LR * fast.lr)

    @cache
    def table() -> ErrorTable:
        return reference_table(data, shape, fast, device, dtype)[0]

    def product(how: FinetuneSettings, steps: int, until: float) -> Timed:
        try:
            return ours(data, shape, how, table(), device, dtype, until=until)[0]
        except OutOfTimeError as cut:
            return cut.timed

    def plainly(otherwise: bool, steps: int, until: float) -> Timed:
        # More steps would be compared with nothing. The rate is constant: fewer are the first of more.
        shorter = dataclasses.replace(settings, steps=steps)
        inputs = stored(data, device)
        return plain(data, shape, shorter, device, dtype, inputs, otherwise=otherwise, until=until)

    runs: dict[str, Callable[[int, float], Timed]] = {
        "ours": partial(product, fast),
        "control": partial(product, faster),
        "plain": partial(plainly, False),
        **{name: partial(plainly, otherwise) for name, otherwise in PLAIN_RUNS.items()},
    }
    found: dict[str, Timed] = {}
    steps = asked.steps
    for name, run in runs.items():
        now = time.monotonic()
        until = now + max(0.0, began + asked.seconds - now) / (len(runs) - len(found))
        found[name] = sides.take(name, steps, partial(run, steps, until))
        steps = min(steps, len(found[name].losses))
        said = f"{name} {found[name].step(_WARM):.3f} s a step, {len(found[name].losses)} steps"
        print(f"[{time.monotonic() - began:5.0f} s] {said}", flush=True)

    plain_runs = [found[name].losses for name in ("plain", *PLAIN_RUNS)]
    same = equality(plain_runs, {"ours": found["ours"].losses}, found["control"].losses)
    result = Result(
        name="training-pair-curves",
        device=device_name(),
        plain=found["plain"].step(_WARM),
        ours=found["ours"].step(_WARM),
        ratio=found["plain"].step(_WARM) / found["ours"].step(_WARM),
        unit="seconds a step of one pair, inputs stored on both sides",
        shape={**dataclasses.asdict(shape), "rank": asked.rank, "pairs": asked.pairs, "steps": asked.steps,
               "draws": asked.draws, "dtype": str(dtype)},
        equality=same,
        command=command_line(),
        versions=versions("torch", "diffusers", "peft", "transformers"),
        details={
            "losses": {name: timed.losses for name, timed in found.items()},
            "runs_of_an_earlier_command": sides.resumed,
        },
    )  # fmt: skip
    write(result, Path(asked.results))
    print(told(same))
    return result


def sides_of(
    asked: argparse.Namespace, name: str, shape: Shape, settings: FinetuneSettings, fast: FinetuneSettings
) -> Sides:
    """The files of a comparison's runs, under what decides their figures."""
    question = {
        "device": device_name(),
        "shape": dataclasses.asdict(shape),
        "pairs": asked.pairs,
        "plain": dataclasses.asdict(settings),
        "ours": dataclasses.asdict(fast),
        "control": CONTROL_LR,
        "versions": versions("torch", "diffusers", "peft", "transformers"),
    }
    return Sides(Path(asked.results) / f"{name}.sides", question, resume=asked.resume)


def stored(data: TrainData, device: torch.device) -> Encode:
    """The clips' own latents and embeddings, instead of encoding them again."""

    def read(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return data.latents[rows].to(device), data.embeds[rows // 2].to(device)

    return read
