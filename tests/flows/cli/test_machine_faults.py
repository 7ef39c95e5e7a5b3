"""Faults of the machine while clips are scored: the unit fails, nothing is stored, the same command heals it."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import typer.testing

import flows.cli.round
import rewards.sharpness
from data.store import Store
from flows.cli.app import app
from tests.tiny_round import Tiny

COMMANDS = (flows.cli.round,)
FAULTS: dict[str, Exception] = {
    "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "cpu memory": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"
    ),
    "files": OSError(errno.EMFILE, "Too many open files"),
    "ecc": RuntimeError("CUDA error: uncorrectable ECC error encountered"),
    "defect": KeyError("frames"),
}


def command(tiny: Tiny, name: str) -> typer.testing.Result:
    # A share of 1: however many clips fail, no count of them stops the round.
    more = ("--plain", "--set", "rewards=[sharpness]", "--set", "score.max_failed_share=1.0")
    return typer.testing.CliRunner().invoke(app, [name, *tiny.args(*more)])


def scores(store: Path) -> list[Any]:
    opened = Store.open(store)
    manifests = [one for one in opened.manifests() if one.stage == "score"]
    return [row for one in manifests for row in opened.read(one.key, "scores")]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_passing_fault_is_told_not_stored_and_heals(
    fault: str, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = command(tiny, "generate")
    assert made.exit_code == 0, made.output

    def broken(frames: object) -> float:
        raise FAULTS[fault]

    with monkeypatch.context() as ill:
        ill.setattr(rewards.sharpness, "sharpness", broken)
        ended = command(tiny, "score")
    assert ended.exit_code == 3
    assert str(FAULTS[fault])[:40] in " ".join(ended.output.split())
    assert scores(tiny.store) == []

    healthy = command(tiny, "score")
    assert healthy.exit_code == 0, healthy.output
    assert [row.status for row in scores(tiny.store)] == ["ok"] * 9
