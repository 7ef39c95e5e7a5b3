"""The devices of this machine that get a worker each."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence

from data.errors import ConfigError

CPU = "cpu"


def devices(chosen: Sequence[str] = ()) -> tuple[str, ...]:
    """Names of devices: `chosen` if any; else every GPU that CUDA_VISIBLE_DEVICES allows; else "cpu".

    GPUs are named by UUID, which means the same in every process.

    Raises:
        ConfigError: a device is named twice, or by what is no name, or CUDA_VISIBLE_DEVICES names no GPU.
    """
    held = _gpus()
    for name in chosen:
        if not re.fullmatch(r"[\w./-]+", name):
            raise ConfigError(f"device {name!r}: say cpu, a GPU's index or its UUID (`nvidia-smi -L`)")
    if len(set(chosen)) != len(chosen):
        raise ConfigError("a device is named twice: one worker each is enough")
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not chosen and allowed is not None and held:
        chosen = [one.strip() for one in allowed.split(",") if one.strip()]
        for one in chosen:
            if one not in held and one not in held.values():
                raise ConfigError(f"CUDA_VISIBLE_DEVICES names {one!r}, and nvidia-smi lists no such GPU")
        return tuple(held.get(one, one) for one in chosen) or (CPU,)
    return tuple(held.get(one, one) for one in chosen or held) or (CPU,)


def _gpus() -> dict[str, str]:
    """UUIDs of the GPUs by their index, as the driver lists them; empty without a driver."""
    asked = ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"]
    try:
        listed = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    rows = [line.split(",") for line in listed.splitlines() if "," in line]
    return {index.strip(): uuid.strip() for index, uuid in rows}
