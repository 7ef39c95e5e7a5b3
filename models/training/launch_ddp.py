"""A training run on several GPUs of one machine, as one call: `train_together` where `train` is one process.

The processes are children of this one (`models.training.launch`), each running `python -m
models.training.launch_ddp FOLDER`.
What they need goes through files in that folder, safetensors and JSON; the leader writes the result beside
them.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import safetensors.torch
import torch
from torch import Tensor

from data import processes
from models.families import get_family
from models.families.settings import ModelSettings
from models.settings import FinetuneSettings
from models.training.distributed import joined
from models.training.launch import run_together
from models.training.reference import ErrorTable
from models.training.train_data import TrainData
from models.training.trainer import TrainResult, train

_JOB: Final = "job.json"
_DATA: Final = "data.safetensors"
_START: Final = "start.safetensors"
_ADAPTER: Final = "adapter.safetensors"
_RESULT: Final = "result.json"
_STEPS: Final = "steps.jsonl"


def train_together(
    model: ModelSettings,
    data: TrainData,
    settings: FinetuneSettings,
    base_id: str,
    folder: Path,
    checkpoint_dir: Path | None = None,
    on_step: Callable[[dict[str, float]], None] | None = None,
    *,
    start: bytes | None = None,
    reference_errors: ErrorTable | None = None,
    threads: int = 1,
) -> TrainResult:
    """`train` over `settings.processes` processes, a GPU each; on a CPU they share the cores.

    Args:
        model: what each process loads; its device is "cpu" or "cuda".
        folder: an empty one, for what the processes are given and leave.
        threads: of each process, on a CPU.
        Others: see `train`.

    Raises:
        StageFailed: a process failed; the end of its output is in the message. Checkpoints stay.
    """
    # safetensors refuses tensors that share memory, and of the small ones some may.
    large = ("latents", "embeds")
    tensors = {
        field.name: value if field.name in large else value.clone()
        for field in dataclasses.fields(data)
        if isinstance(value := getattr(data, field.name), Tensor)
    }
    if reference_errors is not None:
        tensors["errors"] = reference_errors.table
    safetensors.torch.save_file({name: value.contiguous() for name, value in tensors.items()}, folder / _DATA)
    if start is not None:
        (folder / _START).write_bytes(start)
    job = {
        "model": model.model_dump(),
        "settings": dataclasses.asdict(settings),
        "base_id": base_id,
        "checkpoints": None if checkpoint_dir is None else str(checkpoint_dir),
        "threads": threads,
        "clip_ids": data.clip_ids,
        "prompt_ids": data.prompt_ids,
    }
    (folder / _JOB).write_text(json.dumps(job))
    told = 0

    def tell() -> None:
        nonlocal told
        steps = folder / _STEPS
        if on_step is not None and steps.exists():
            # The last line may still be in the making.
            lines = steps.read_text().split("\n")[:-1]
            for line in lines[told:]:
                on_step(json.loads(line))
            told = len(lines)

    run_together(("-m", "models.training.launch_ddp", str(folder)), settings.processes, folder, tell)
    found = json.loads((folder / _RESULT).read_text())
    return TrainResult((folder / _ADAPTER).read_bytes(), found["curve"], found["diagnostics"])


def work(folder: Path) -> None:
    """One process of the run that `folder` describes."""
    job: dict[str, Any] = json.loads((folder / _JOB).read_text())
    tensors = safetensors.torch.load_file(folder / _DATA)
    errors = tensors.pop("errors", None)
    data = TrainData(clip_ids=tuple(job["clip_ids"]), prompt_ids=tuple(job["prompt_ids"]), **tensors)
    for name in ("targets", "sigma_range"):
        job["settings"][name] = tuple(job["settings"][name])
    settings, model = FinetuneSettings(**job["settings"]), ModelSettings(**job["model"])
    table = None
    if errors is not None:
        table = ErrorTable(data.clip_ids, dict(zip(data.clip_ids, errors, strict=True)))
    family = get_family(model.family)
    with joined(torch.device(model.torch_device).type) as (team, device):

        def on_step(entry: dict[str, float]) -> None:
            if team.leads:
                with (folder / _STEPS).open("a") as steps:
                    steps.write(json.dumps(entry) + "\n")

        result = train(
            family.load_transformer(model.changed(device=str(device))),
            family,
            data,
            settings,
            job["base_id"],
            None if job["checkpoints"] is None else Path(job["checkpoints"]),
            on_step,
            start=(folder / _START).read_bytes() if (folder / _START).exists() else None,
            reference_errors=table,
            threads=job["threads"],
            team=team,
        )
        if team.leads:
            (folder / _ADAPTER).write_bytes(result.adapter)
            found = {"curve": result.curve, "diagnostics": result.diagnostics}
            (folder / _RESULT).write_text(json.dumps(found))


if __name__ == "__main__":
    # Leave no process behind on the GPU when the one that waits for it is killed.
    processes.on_parent_exit(lambda _: os._exit(1))
    logging.basicConfig(level=logging.INFO)
    work(Path(sys.argv[1]))
