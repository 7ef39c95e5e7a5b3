"""Training checkpoints, a file each: a line of JSON, then safetensors; a crash leaves the last one whole."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from data.json_text import parse_json
from data.keys import bytes_digest
from data.store.durable_files import remove, storage_errors, write_durably
from data.store.failpoints import failpoint

log = logging.getLogger(__name__)

_FORMAT: Final = 2
_NAME: Final = re.compile(r"step-\d{8}\.checkpoint")


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

    Raises:
        StoreError: the disk is full, or the folder cannot be written, with its path; the previous checkpoint
            is still whole.
    """
    data = safetensors.torch.save({name: value.contiguous() for name, value in tensors.items()})
    facts = {"format": _FORMAT, "identity": identity, "step": step, "curve": curve}
    body = json.dumps(facts, sort_keys=True).encode() + b"\n" + data
    target = folder / f"step-{step:08d}.checkpoint"
    with storage_errors(target):
        if target.is_dir():
            remove(target)
        for left in folder.glob("*.tmp"):  # by a crash: a folder belongs to one run at a time
            remove(left)
        write_durably(folder, target, bytes_digest(body).encode() + b"\n" + body, replace=True)
        for old in _all(folder):
            if old != target:
                remove(old)
        failpoint("finetune.after_checkpoint")


def latest(folder: Path, identity: str) -> Checkpoint | None:
    """The newest whole checkpoint of this very run, or None; damaged and foreign ones are logged."""
    for path in reversed(_all(folder)):
        try:
            digest, _, body = path.read_bytes().partition(b"\n")
            if digest.decode() != bytes_digest(body):
                log.warning("checkpoint %s is damaged: not resumed", path)
                continue
            line, _, data = body.partition(b"\n")
            facts = parse_json(line)
            if facts["format"] == _FORMAT and facts["identity"] == identity:
                return Checkpoint(facts["step"], safetensors.torch.load(data), facts["curve"])
            log.warning("checkpoint %s belongs to another run: not resumed", path)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as failure:
            log.warning("checkpoint %s cannot be read (%s): not resumed", path, failure)
    return None


def _all(folder: Path) -> list[Path]:
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in found if _NAME.fullmatch(path.name))
