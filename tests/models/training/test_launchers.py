"""Training processes that other programs start: `accelerate launch` and `torchrun` find the same team."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models import lora
from models.training.distributed import launch_processes

ROOT = Path(__file__).resolve().parents[3]
CHILD = [
    "-m", "benchmarks.training_two_gpus", "--size", "tiny", "--height", "32", "--width", "48", "--frames", "9",
    "--text-length", "16", "--rank", "4", "--steps", "3", "--pairs-a-step", "4", "--no-compile",
    "--device", "cpu", "--child",
]  # fmt: skip


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ours")
    launch_processes([*CHILD, str(folder)], 2, folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["accelerate", "torchrun"])
def test_other_launchers_form_the_same_team(launcher: str, expected: Path, tmp_path: Path) -> None:
    module = {"accelerate": "accelerate.commands.launch", "torchrun": "torch.distributed.run"}[launcher]
    options = {
        "accelerate": [
            "--cpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no",
            "--dynamo_backend", "no", "--num_cpu_threads_per_process", "1",
            "--main_process_port", str(free_port()),
        ],
        "torchrun": ["--standalone", "--nproc-per-node", "2"],
    }[launcher]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-m", module, *options, *CHILD, str(tmp_path)]
    run = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr[-3000:]
    ours, theirs = (
        json.loads((folder / "run.json").read_text())["losses"] for folder in (expected, tmp_path)
    )
    # A logit is 250 times a difference of errors of order 1 in float32: sums in another order move it by 2e-5.
    assert theirs == pytest.approx(ours, rel=1e-4)
    left, right = (
        lora.read((folder / "adapter.safetensors").read_bytes()).tensors for folder in (expected, tmp_path)
    )
    # accelerate sets thread variables of its own, and with them the order of sums; AdamW's steps are of 1e-4.
    for name, value in left.items():
        torch.testing.assert_close(right[name], value, rtol=1e-3, atol=1e-5)
