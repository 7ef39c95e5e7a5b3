"""What a stage notes of its machine: as NVIDIA's program says it, and nothing where there is none."""

from __future__ import annotations

import importlib.metadata
import socket
from pathlib import Path

import pytest
import torch

from tasks.versions import versions


def smi(folder: Path, said: str, code: int = 0) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nprintf '%s' \"{said}\"\nexit {code}\n")
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("said", "code", "names", "attention"),
    [
        ("NVIDIA H200, 570.1, 143771 MiB, 9.0\nNVIDIA H200, 570.1, 143771 MiB, 9.0\n", 0, ["NVIDIA H200"] * 2,
         "cudnn, else flash, else efficient, else math"),
        ("NVIDIA H200, 570.1, 143771 MiB, 9.0\nNVIDIA A10, 570.1, 23028 MiB, 8.6\n", 0, ["NVIDIA H200", "NVIDIA A10"],
         "as PyTorch chooses"),
        ("no devices were found", 6, [], "as PyTorch chooses"),
    ],
)  # fmt: skip
def test_gpus_are_named_with_their_driver_and_kernel(
    said: str, code: int, names: list[str], attention: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smi(tmp_path, said, code)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    found = versions("auto")
    assert [one["name"] for one in found["gpus"]] == names
    assert all(one["driver_version"] == "570.1" for one in found["gpus"])
    assert found["attention"] == attention
    assert versions("cpu")["gpus"] == []


def test_packages_are_those_that_are_installed_and_the_machine_is_not_named() -> None:
    found = versions("cpu")
    assert found["packages"]["numpy"] == importlib.metadata.version("numpy")
    assert found["torch"]["version"] == torch.__version__
    assert found["attention"] == "PyTorch's for CPUs"
    assert socket.gethostname() not in str(found).split()
