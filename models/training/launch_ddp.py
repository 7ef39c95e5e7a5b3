"""Training on several GPUs of one machine, as one call: `train_distributed`, where `train` is one process.

The processes are children of this one, each running `python -m models.training.launch_ddp FOLDER`. What they
need goes through files in that folder, safetensors and JSON; the main one writes the result beside them.
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
from models.training.distributed import launch_processes, process_group
from models.training.reference import ErrorTable
from models.training.settings import TrainSettings
from models.training.train_data import TrainData
from models.training.trainer import OnStep, TrainJob, TrainResult, train

_JOB: Final = "job.json"
_DATA: Final = "data.safetensors"
_ADAPTER: Final = "adapter.safetensors"
_RESULT: Final = "result.json"
_STEPS: Final = "steps.jsonl"


def train_distributed(
    model: ModelSettings, job: TrainJob, folder: Path, on_step: OnStep = lambda _: None
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
    steps, seen = folder / _STEPS, 0
    steps.touch()

    def tell() -> None:
        nonlocal seen
        # The last line may still be in the making.
        lines = steps.read_text().split("\n")[seen:-1]
        for line in lines:
            on_step(json.loads(line))
        seen += len(lines)

    command = ("-m", "models.training.launch_ddp", str(folder))
    launch_processes(command, job.settings.processes, folder, tell)
    return TrainResult((folder / _ADAPTER).read_bytes(), **json.loads((folder / _RESULT).read_text()))


def _write(model: ModelSettings, job: TrainJob, folder: Path) -> None:
    said: dict[str, Any] = {
        "model": model.model_dump(),
        "settings": job.settings.model_dump(mode="json"),
        "job": {"base_id": job.base_id, "threads": job.threads},
        "checkpoints": str(job.checkpoints) if job.checkpoints else None,
        "clip_ids": job.data.clip_ids,
        "prompt_ids": job.data.prompt_ids,
    }
    # safetensors refuses tensors that share memory, and of the small ones some may.
    large = ("latents", "embeds")
    tensors = {
        field.name: value.contiguous() if field.name in large else value.clone().contiguous()
        for field in dataclasses.fields(job.data)
        if isinstance(value := getattr(job.data, field.name), Tensor)
    }
    if job.reference_errors is not None:
        tensors["errors"] = job.reference_errors.table
    if job.start is not None:
        tensors["start"] = torch.frombuffer(bytearray(job.start), dtype=torch.uint8)
    safetensors.torch.save_file(tensors, folder / _DATA)
    (folder / _JOB).write_text(json.dumps(said))


def _read(folder: Path) -> tuple[ModelSettings, TrainJob]:
    said: dict[str, Any] = json.loads((folder / _JOB).read_text())
    clips, prompts, checkpoints = tuple(said["clip_ids"]), tuple(said["prompt_ids"]), said["checkpoints"]
    tensors = safetensors.torch.load_file(folder / _DATA)
    errors, start = tensors.pop("errors", None), tensors.pop("start", None)
    job = TrainJob(
        TrainData(clip_ids=clips, prompt_ids=prompts, **tensors),
        TrainSettings.model_validate(said["settings"]),
        checkpoints=Path(checkpoints) if checkpoints else None,
        start=None if start is None else start.numpy().tobytes(),
        reference_errors=None if errors is None else ErrorTable(clips, dict(zip(clips, errors, strict=True))),
        **said["job"],
    )
    return ModelSettings.model_validate(said["model"]), job


def work(folder: Path) -> None:
    """One process of the run that `folder` describes."""
    model, job = _read(folder)
    family = get_family(model.family)

    def on_step(entry: dict[str, float]) -> None:
        with (folder / _STEPS).open("a") as steps:
            steps.write(json.dumps(entry) + "\n")

    with process_group(torch.device(model.torch_device).type) as (group, device):
        network = family.load_transformer(model.changed(device=str(device)))
        if group.rank > 0:
            train(network, family, job, group=group)
            return
        result = train(network, family, job, on_step, group)
        (folder / _ADAPTER).write_bytes(result.adapter)
        found = {"curve": result.curve, "diagnostics": result.diagnostics}
        (folder / _RESULT).write_text(json.dumps(found))


if __name__ == "__main__":
    # Leave no process behind on the GPU when the one that waits for it is killed.
    processes.on_parent_exit(lambda _: os._exit(1))
    logging.basicConfig(level=logging.INFO)
    work(Path(sys.argv[1]))
