"""What every room's tests share: a store, tiny frames, and rows that are right unless a test says otherwise."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from data.keys import digest
from data.records import Clip, Prompt, Score, prompt_id
from data.store import Manifest, Store

Frames = npt.NDArray[np.uint8]


@pytest.fixture(scope="module", autouse=True)
def _libraries_are_no_garbage() -> None:
    """What earlier modules imported is not looked through again by each collection: half a second each."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store.open(tmp_path / "store", create=True)


@pytest.fixture
def frames() -> Frames:
    """A red square that moves right on white: uint8 [9, 32, 32, 3]."""
    picture = np.full((9, 32, 32, 3), 255, np.uint8)
    for t in range(9):
        picture[t, 10:20, 2 * t : 2 * t + 10] = (220, 40, 30)
    return picture


@pytest.fixture
def make_prompt() -> Callable[..., Prompt]:
    """A prompt of a given text; keyword arguments replace fields."""

    def make(text: str = "a red ball falls", **fields: Any) -> Prompt:
        return replace(
            Prompt(prompt_id(text), text, "falling down", "ball falls", "train", "world"), **fields
        )

    return make


@pytest.fixture
def make_clip() -> Callable[..., Clip]:
    """A clip row of a given id, without files; keyword arguments replace fields."""

    def make(clip_id: str, **fields: Any) -> Clip:
        clip = Clip(
            clip_id=clip_id, prompt_id="p1", prompt="a red ball falls", category="falling down", split="train",
            policy_id="base", seed=7, width=32, height=32, frames=9, fps=8.0, sampler="unipc", steps=8, guidance=1.0,
            batch_size=4, row_in_batch=0, video_path="", video_sha256="", codec="libx264 crf=4 yuv444p veryfast",
            latent_path="", latent_row=0, embed_row=0, device_kind="cpu", code_version="1",
        )  # fmt: skip
        return replace(clip, **fields)

    return make


@pytest.fixture
def make_score() -> Callable[..., Score]:
    """A score of a clip; a value of None is a failed judgement."""

    def make(clip_id: str, value: float | None, reward: str = "physics", version: str = "v1") -> Score:
        if value is None:
            return Score(clip_id, reward, version, None, "failed", "cannot be decoded", "{}")
        return Score(clip_id, reward, version, value, "ok", None, "{}")

    return make


@pytest.fixture
def commit(store: Store) -> Callable[..., Manifest]:
    """Commit rows under a stage; the question is the stage and a name."""

    def commit_rows(stage: str, name: str = "", **tables: Any) -> Manifest:
        question = {"stage": stage, "version": 1, "name": name or digest([repr(tables)])}
        return store.commit(stage, question, tables)

    return commit_rows
