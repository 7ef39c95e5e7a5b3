"""Training checkpoints: safetensors and JSON; a crash at any instant leaves the last one whole."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import safetensors.torch
from torch import Tensor

from data.keys import bytes_digest
from data.store.failpoints import failpoint

log = logging.getLogger(__name__)

_FORMAT: Final = 1
_TENSORS: Final = "state.safetensors"
_FACTS: Final = "state.json"
_NAME: Final = re.compile(r"step-\d{8}")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """State after `step` optimiser steps: adapter, optimiser moments, and the curve so far."""

    step: int
    tensors: dict[str, Tensor]
    curve: list[dict[str, float]]


def save(
    folder: Path, identity: str, step: int, tensors: Mapping[str, Tensor], curve: list[dict[str, float]]
) -> None:
    """Write a checkpoint below `folder` (made if missing) and then remove the older ones.

    Args:
        identity: digest of the settings and data; a checkpoint of another run is never resumed.
        step: optimiser steps done.
        tensors: adapter and optimiser state, on the CPU.

    Raises:
        OSError: the folder cannot be written; the previous checkpoint is still whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / "tmp"
    shutil.rmtree(draft, ignore_errors=True)  # left by a crash: a folder belongs to one run at a time
    draft.mkdir()
    data = safetensors.torch.save({name: value.contiguous() for name, value in tensors.items()})
    facts = {
        "format": _FORMAT,
        "identity": identity,
        "step": step,
        "sha256": bytes_digest(data),
        "curve": curve,
    }
    _write(draft / _TENSORS, data)
    _write(draft / _FACTS, json.dumps(facts, sort_keys=True).encode())
    target = folder / f"step-{step:08d}"
    if target.exists():
        shutil.rmtree(target)
    draft.rename(target)
    _sync(folder)
    for old in _all(folder):
        if old != target:
            shutil.rmtree(old)
    failpoint("finetune.after_checkpoint")


def latest(folder: Path, identity: str) -> Checkpoint | None:
    """The newest whole checkpoint of this very run, or None; damaged and foreign ones are logged."""
    for path in reversed(_all(folder)):
        try:
            facts = json.loads((path / _FACTS).read_bytes())
            data = (path / _TENSORS).read_bytes()
            if facts["format"] != _FORMAT or facts["identity"] != identity:
                log.warning("checkpoint %s belongs to another run: not resumed", path)
            elif facts["sha256"] != bytes_digest(data):
                log.warning("checkpoint %s is damaged: not resumed", path)
            else:
                return Checkpoint(int(facts["step"]), safetensors.torch.load(data), facts["curve"])
        except (OSError, ValueError, KeyError) as failure:
            log.warning("checkpoint %s cannot be read (%s): not resumed", path, failure)
    return None


def clear(folder: Path) -> None:
    """Remove all checkpoints, once the adapter is safe elsewhere. Nothing else in `folder` is touched."""
    for path in _all(folder):
        shutil.rmtree(path)


def _all(folder: Path) -> list[Path]:
    return (
        sorted(path for path in folder.glob("step-*") if _NAME.fullmatch(path.name))
        if folder.is_dir()
        else []
    )


def _write(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
