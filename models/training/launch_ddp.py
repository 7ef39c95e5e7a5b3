"""Training on several GPUs of one machine, as one call: `train_distributed`, where `train` is one process.

The processes are children of this one (`models.training.launch`), each running `python -m
models.training.launch_ddp FOLDER`. What they need goes through files in that folder, safetensors and JSON;
the main one writes the result beside them.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any, Final

import safetensors.torch
import torch
from torch import Tensor

from data import processes
from models.families import get_family
from models.families.settings import ModelSettings
from models.training.distributed import process_group
from models.training.launch import launch_processes
from models.training.reference import ErrorTable
from models.training.settings import TrainSettings
from models.training.train_data import TrainData
from models.training.trainer import OnStep, TrainJob, TrainResult, train

_JOB: Final = "job.json"
_DATA: Final = "data.safetensors"
_START: Final = "start.safetensors"
_ADAPTER: Final = "adapter.safetensors"
_RESULT: Final = "result.json"
_STEPS: Final = "steps.jsonl"


def train_distributed(
    model: ModelSettings, job: TrainJob, folder: Path, on_step: OnStep | None = None
) -> TrainResult:
    """`train` over `job.settings.processes` processes, a GPU each; on a CPU they share the cores.

    Args:
        model: what each process loads; its device is "cpu" or "cuda".
        job: `threads` are those of each process, on a CPU.
        folder: an empty one, for what the processes are given and leave.
        on_step: see `train`.

    Raises:
        StageFailed: a process failed; the end of its output is in the message. Checkpoints stay.
    """
    _write(model, job, folder)
    seen = 0

    def tell() -> None:
        nonlocal seen
        steps = folder / _STEPS
        if on_step is not None and steps.exists():
            # The last line may still be in the making.
            lines = steps.read_text().split("\n")[:-1]
            for line in lines[seen:]:
                on_step(json.loads(line))
            seen = len(lines)

    command = ("-m", "models.training.launch_ddp", str(folder))
    launch_processes(command, job.settings.processes, folder, tell)
    found = json.loads((folder / _RESULT).read_text())
    return TrainResult((folder / _ADAPTER).read_bytes(), found["curve"], found["diagnostics"])


def _write(model: ModelSettings, job: TrainJob, folder: Path) -> None:
    # safetensors refuses tensors that share memory, and of the small ones some may.
    large = ("latents", "embeds")
    tensors = {
        field.name: value if field.name in large else value.clone()
        for field in dataclasses.fields(job.data)
        if isinstance(value := getattr(job.data, field.name), Tensor)
    }
    if job.reference_errors is not None:
        tensors["errors"] = job.reference_errors.table
    safetensors.torch.save_file({name: value.contiguous() for name, value in tensors.items()}, folder / _DATA)
    if job.start is not None:
        (folder / _START).write_bytes(job.start)
    said = {
        "model": model.model_dump(),
        "settings": job.settings.model_dump(mode="json"),
        "base_id": job.base_id,
        "checkpoints": None if job.checkpoints is None else str(job.checkpoints),
        "threads": job.threads,
        "clip_ids": job.data.clip_ids,
        "prompt_ids": job.data.prompt_ids,
    }
    (folder / _JOB).write_text(json.dumps(said))


def _read(folder: Path) -> tuple[ModelSettings, TrainJob]:
    said: dict[str, Any] = json.loads((folder / _JOB).read_text())
    tensors = safetensors.torch.load_file(folder / _DATA)
    errors = tensors.pop("errors", None)
    data = TrainData(clip_ids=tuple(said["clip_ids"]), prompt_ids=tuple(said["prompt_ids"]), **tensors)
    table = None
    if errors is not None:
        table = ErrorTable(data.clip_ids, dict(zip(data.clip_ids, errors, strict=True)))
    return ModelSettings.model_validate(said["model"]), TrainJob(
        data,
        TrainSettings.model_validate(said["settings"]),
        said["base_id"],
        None if said["checkpoints"] is None else Path(said["checkpoints"]),
        (folder / _START).read_bytes() if (folder / _START).exists() else None,
        table,
        said["threads"],
    )


def work(folder: Path) -> None:
    """One process of the run that `folder` describes."""
    model, job = _read(folder)
    family = get_family(model.family)
    with process_group(torch.device(model.torch_device).type) as (group, device):

        def on_step(entry: dict[str, float]) -> None:
            if group.is_main:
                with (folder / _STEPS).open("a") as steps:
                    steps.write(json.dumps(entry) + "\n")

        network = family.load_transformer(model.changed(device=str(device)))
        result = train(network, family, job, on_step, group)
        if group.is_main:
            (folder / _ADAPTER).write_bytes(result.adapter)
            found = {"curve": result.curve, "diagnostics": result.diagnostics}
            (folder / _RESULT).write_text(json.dumps(found))


if __name__ == "__main__":
    # Leave no process behind on the GPU when the one that waits for it is killed.
    processes.on_parent_exit(lambda _: os._exit(1))
    logging.basicConfig(level=logging.INFO)
    work(Path(sys.argv[1]))
