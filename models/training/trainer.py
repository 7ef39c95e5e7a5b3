"""Offline finetuning of a LoRA adapter: the loop around `step`, with checkpoints and diagnostics.

Everything random about step n is a function of (seed, n), so a run that was killed and resumed from its
checkpoint ends with the same bytes as one that was not.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from data.errors import ModelError, StageFailed
from data.keys import bytes_digest, digest
from models import lora
from models.compile import compile_blocks
from models.families.base import Family
from models.lora_spec import LoraSpec, read_header, require_same
from models.training import checkpoint, noise
from models.training.beta import Calibration, calibrate
from models.training.distributed import ALONE, ProcessGroup
from models.training.equations import effective_sample_size
from models.training.probe import probe
from models.training.reference import ErrorTable, rounding
from models.training.settings import TrainSettings
from models.training.step import STAGE, Run
from models.training.train_data import TrainData

log = logging.getLogger(__name__)

OnStep = Callable[[dict[str, float]], None]

# A gap above this before the first step is a defect, not rounding: on a CPU in float32 two passes of one kind
# are exactly 0 apart. A stored error is of another pass, and may round otherwise (`rounding`).
_GAP_TOLERANCE: Final = 1e-6
# On a GPU rounding may differ between a stored error and a fresh one; it must not be what is learned from.
_LOGIT_TOLERANCE: Final = 0.01


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a run leaves.

    Attributes:
        adapter: bytes of `pytorch_lora_weights.safetensors`.
        curve: one entry a step; see `Objective.logs` for the names.
        diagnostics: what the run was, in numbers; equal for a resumed and an uninterrupted run.
    """

    adapter: bytes
    curve: list[dict[str, float]]
    diagnostics: dict[str, Any]


@dataclass(frozen=True, slots=True)
class TrainJob:
    """One training run, but for the network that learns.

    Attributes:
        data: at least one usable unit (see `Objective.usable`).
        base_id: identity of the base network, written into the adapter.
        checkpoints: folder where checkpoints go; a whole one of this very run is resumed. None keeps none.
        start: adapter bytes to start from (the champion's); None starts at the base.
        reference_errors: stored errors at the fixed draws; None computes them as it goes.
        threads: CPU threads that share the micro-batches of a step; on a GPU it is always one.
    """

    data: TrainData
    settings: TrainSettings
    base_id: str
    checkpoints: Path | None = None
    start: bytes | None = None
    reference_errors: ErrorTable | None = None
    threads: int = 1


def train(
    transformer: nn.Module,
    family: Family,
    job: TrainJob,
    on_step: OnStep = lambda _: None,
    group: ProcessGroup = ALONE,
) -> TrainResult:
    """Train an adapter of `transformer` on stored clips.

    Args:
        transformer: the frozen base network, without an adapter; it gets one and keeps it.
        on_step: called after every step with the entry of the curve.
        group: the processes that share the micro-batches; each calls this with the same arguments and gets
            the same result. The main one writes the checkpoints, and it alone has the probe. Left out:
            this process is alone.

    Raises:
        ConfigError: the settings ask for an adapter of another size or place than the one to start from.
        ModelError: nothing to learn from, or the settings do not fit the data or the model.
        StageFailed: the loss became NaN or infinite, or a single unit does not fit into GPU memory.
            Checkpoints stay.
    """
    data, settings, start, reference_errors = job.data, job.settings, job.start, job.reference_errors
    _check(data, settings, reference_errors)
    device = next(transformer.parameters()).device
    transformer.requires_grad_(False).eval()
    spec = LoraSpec(settings.rank, settings.alpha, settings.targets or family.lora_targets)
    if start is None:
        adapter = lora.attach(transformer, spec, noise.seed_of(settings.seed, "adapter"))
    else:
        require_same(read_header(start)[0], spec)
        adapter = lora.resume(
            transformer,
            start,
            job.base_id,
            keep_reference=settings.reference == "start",
            expert=settings.expert,
        )
    network: Any = transformer  # a diffusers model: nn.Module does not declare its dtype
    identity = _identity(job)
    found: Calibration | None = None
    if settings.target_logit_std is not None and settings.compares_errors:
        rows = settings.micro_batch or settings.batch_size
        found = calibrate(lora.reference_of(transformer), family, data, settings, rows, reference_errors)
        # One number for all: processes that round differently would otherwise drift apart.
        settings = settings.changed(beta=group.least(found.beta, device))
        log.info("beta is %g: the logit's spread is %g", found.beta, found.target_spread)
    curve: list[dict[str, float]] = []
    starts_at_reference = start is None or settings.reference == "start"
    with Run(transformer, family, data, settings, adapter, reference_errors, job.threads, group) as run:
        saved = checkpoint.latest(job.checkpoints, identity) if job.checkpoints else None
        if saved is not None:
            run.restore(saved.tensors)
            curve = saved.curve
            log.info("resumed from the checkpoint of step %d", saved.step)
        for step in range(len(curve), settings.steps):
            curve.append({"step": step, **run.step(step)})
            if step == 0 and starts_at_reference:
                exact = run.device.type == "cpu" and network.dtype == torch.float32
                spread = rounding(network, data.latents[0].numel()) if reference_errors is not None else None
                _check_gap(curve[0], settings, exact=exact, spread=spread)
            on_step(curve[-1])
            done = step + 1
            due = done % settings.checkpoint_every == 0 and done < settings.steps
            if due and group.rank == 0 and job.checkpoints:
                checkpoint.save(job.checkpoints, identity, done, run.state(), curve)
        measured: dict[str, Any] | None = None
        if settings.probe and group.rank == 0:
            still = lora.reference_of(transformer)
            if settings.compile:
                compile_blocks(still)
            measured = probe(transformer, still, family, data, settings, run.micro_batch)
    facts: dict[str, Any] = {
        "objective": settings.label, "steps": settings.steps, "reference": settings.reference,
    }  # fmt: skip
    if settings.expert is not None:
        facts["expert"] = settings.expert
    diagnostics = _diagnostics(data, settings, curve) | {"micro_batch": run.micro_batch}
    for name, value in (("memory_plan", run.memory_plan), ("calibration", found)):
        if value is not None:
            diagnostics[name] = dataclasses.asdict(value)
    if measured is not None:
        diagnostics["probe"] = measured
    return TrainResult(adapter.to_bytes(job.base_id, facts), curve, diagnostics)


def _check(data: TrainData, settings: TrainSettings, reference_errors: ErrorTable | None) -> None:
    if settings.algorithm.usable(data) == 0:
        what = settings.algorithm.data.learns_from
        raise ModelError(f"no training data: {settings.label} needs {what}, and the curation left none")
    if settings.prompt_dropout > 0 and data.unconditional is None:
        raise ModelError(
            "finetune.prompt_dropout needs the embedding of the negative prompt, and there is none"
        )
    if reference_errors is not None and (settings.fixed_noise_samples == 0 or settings.prompt_dropout > 0):
        raise ModelError(
            "stored reference errors need finetune.fixed_noise_samples above 0 and finetune.prompt_dropout 0"
        )


def _check_gap(
    entry: dict[str, float], settings: TrainSettings, *, exact: bool, spread: float | None
) -> None:
    """Before the first step, policy and reference are one network: their errors must agree.

    Args:
        exact: whether only the order of sums may differ; spread: by what share of an error, if one is stored.
    """
    gap, tolerance = entry.get("gap/max", 0.0), _GAP_TOLERANCE
    if spread is not None:
        tolerance = spread * max(value for name, value in entry.items() if name.startswith("error"))
    if exact and gap > tolerance:
        raise StageFailed(
            STAGE, f"policy and reference differ by {gap} before the first step: this is a defect"
        )
    log.info("gap between policy and reference before the first step: %g", gap)
    if entry.get("logit/max", 0.0) > _LOGIT_TOLERANCE:
        ways = ["lower finetune.beta"]
        if settings.compile:
            ways.insert(0, "set finetune.compile to false")
        if spread is not None:
            ways.insert(0, "measure the reference's errors with finetune.reference_errors 'inline'")
        log.warning(
            "before the first step the logit is already %g where it should be 0, by rounding: %s",
            entry["logit/max"],
            ", or ".join(ways),
        )


def _identity(job: TrainJob) -> str:
    """What a checkpoint must share with a run to be resumed by it."""
    data = job.data
    tables = [data.examples, data.weights, data.accepted, data.undesirable, data.pairs]
    if data.pair_frames is not None:
        tables.append(data.pair_frames)
    rows = [table.tolist() for table in tables]
    origin = bytes_digest(job.start) if job.start is not None else ""
    asked = job.settings.model_dump(mode="json")
    return digest([asked, job.base_id, origin, list(data.clip_ids), list(data.prompt_ids), rows])


def _diagnostics(data: TrainData, settings: TrainSettings, curve: list[dict[str, float]]) -> dict[str, Any]:
    objective = settings.algorithm
    usable = objective.usable(data)
    found: dict[str, Any] = {
        "units": usable,
        "prompts": len(data.prompt_index[objective.units(data)[:, 0]].unique()),
        "epochs": settings.steps * settings.batch_size / usable,
        "last_quarter": late_means(curve),
    }
    if "gap/max" in curve[0]:
        found["gap_at_start"] = curve[0]["gap/max"]
    if settings.compares_errors:
        found["beta"] = settings.beta
    if not objective.pairwise:
        weights = objective.unit_weights(data, settings) if objective.counts else torch.ones(usable)
        found["effective_sample_size"] = effective_sample_size(weights)
    return found


def late_means(curve: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean of every logged value over the last quarter of the steps, of those that have it."""
    tail = curve[-max(1, len(curve) // 4) :]
    names = dict.fromkeys(name for entry in tail for name in entry if name != "step")
    held = {name: [entry[name] for entry in tail if name in entry] for name in names}
    return {name: sum(values) / len(values) for name, values in held.items()}
