"""A rubric of two questions for the tiny VLM, clips of its size, and a server that can be told to fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from rewards.base import LoadedClip
from rewards.judge.processing import Processing
from rewards.judge.rubric import Rubric, load_rubric
from tests.rewards.judge.fault_server import KEY, MODEL, FaultServer
from tests.tiny_vlm import tiny_vlm  # noqa: F401  (a fixture)

RUBRIC: dict[str, Any] = {
    "name": "two",
    "system": "Answer yes or no.",
    "frames": {"count": 4},
    "answer": {"positive": ["yes", "Yes"], "negative": ["no", "No"], "min_mass": 0.0},
    "questions": [
        {"id": "task", "text": "task: {prompt}?"},
        {"id": "physics", "text": "physics: {prompt}?"},
    ],
}


@pytest.fixture
def write_rubric(tmp_path: Path) -> Callable[..., str]:
    """A rubric file; keyword arguments replace keys of `RUBRIC`."""

    def write(file: str = "rubric.yaml", **changed: Any) -> str:
        path = tmp_path / file
        path.write_text(yaml.safe_dump(RUBRIC | changed))
        return str(path)

    return write


@pytest.fixture
def rubric(write_rubric: Callable[..., str]) -> Rubric:
    return load_rubric(write_rubric())


@pytest.fixture
def clips() -> Callable[..., list[LoadedClip]]:
    """Noise of 32 x 32 pixels and nine frames: all different."""

    def make(count: int = 3, frames: int = 9, category: str = "falling down") -> list[LoadedClip]:
        rng = np.random.default_rng(0)
        return [
            LoadedClip(
                f"c{i}",
                "a red ball falls onto the floor and bounces",
                rng.integers(0, 256, (frames, 32, 32, 3), dtype=np.uint8),
                8.0,
                category,
            )
            for i in range(count)
        ]

    return make


@pytest.fixture(params=[False, True], ids=["questions alone", "questions together"])
def server(
    tiny_vlm: Path, rubric: Rubric, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[FaultServer]:
    monkeypatch.setenv("VIDLOOP_JUDGE_KEY", KEY)
    with FaultServer(Processing(str(tiny_vlm), "", rubric), together=request.param) as running:
        yield running


@pytest.fixture
def served(
    tiny_vlm: Path, server: FaultServer, write_rubric: Callable[..., str]
) -> Callable[..., dict[str, Any]]:
    """Settings of a judge that asks the fault server."""

    def settings(**changed: Any) -> dict[str, Any]:
        return {
            "backend": "vllm",
            "model": str(tiny_vlm),
            "rubric": write_rubric(),
            "url": server.url,
            "served_name": MODEL,
            "retries": 1,
            "timeout_s": 2.0,
            "concurrency": 2,
        } | changed

    return settings
