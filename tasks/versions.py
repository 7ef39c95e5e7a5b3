"""Versions: what a stage was computed with. Facts of a run, outside every digest."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

_ASKED: Final = ("name", "driver_version", "memory.total", "compute_cap")


def versions(device: str) -> dict[str, Any]:
    """Python, every installed package, PyTorch with its libraries, processor, GPUs and attention kernel.

    Nothing in it names the machine or a path of it. PyTorch is imported; no GPU is touched: the driver's own
    program is asked, for a CUDA context would take memory from the stage. So cuDNN is named by its package:
    to ask PyTorch for its version opens one.

    Args:
        device: as a recipe names it ("auto", "cpu", "cuda:0").
    """
    import torch

    from models.compile import attention_kernel

    on_gpu = torch.cuda.is_available() and device != "cpu"
    gpus = _gpus() if on_gpu else []
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "packages": _packages(),
        "torch": {
            "version": torch.__version__,
            "cuda": torch.version.cuda if on_gpu else None,
            "cpu_kernels": torch.backends.cpu.get_cpu_capability(),
            "threads": os.environ.get("OMP_NUM_THREADS"),
        },
        "gpus": gpus,
        "attention": attention_kernel([one["compute_cap"] for one in gpus] if on_gpu else None),
    }


@functools.cache
def _packages() -> dict[str, str]:
    """Every installed package, in the order of names; to read what all say of themselves takes a while."""
    found = sorted(importlib.metadata.distributions(), key=lambda one: one.name.lower())
    return {one.name: one.version for one in found}


def _processor() -> str | None:
    """The processor's name; None where the system does not say."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text("utf-8", "replace").splitlines() if told.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def _gpus() -> list[dict[str, str]]:
    """What NVIDIA's program says of each GPU; nothing where there is none, as with another maker's."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, f"--query-gpu={','.join(_ASKED)}", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[cell.strip() for cell in line.split(",")] for line in told.splitlines() if line.strip()]
    return [dict(zip(_ASKED, row, strict=True)) for row in rows if len(row) == len(_ASKED)]
