"""Clips for the rewards: rendered scenes of the world, and plain arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from miniature.world.catalog import Subject, caption
from miniature.world.render import render
from miniature.world.scene import sample_scene
from rewards.base import LoadedClip

Frames = npt.NDArray[np.uint8]


@pytest.fixture
def world_clip() -> Callable[..., LoadedClip]:
    """A rendered clip of the world with its own caption; `prompt` replaces the caption."""

    def make(
        template: str = "bounce", *subjects: str, seed: int = 0, prompt: str | None = None, fps: Any = 8.0, size: int = 64,
        violation: str | None = None,
    ) -> LoadedClip:  # fmt: skip
        who = [Subject(*words.split()) for words in subjects or ("red ball",)]
        scene = sample_scene(template, who, np.random.default_rng(seed), violation)
        frames = render([scene], size=size)[0].numpy()
        return LoadedClip(f"{template}-{seed}", prompt or caption(template, who), frames, fps)

    return make


@pytest.fixture
def sliding_square() -> Callable[..., LoadedClip]:
    """A square of a third of the side that moves right by `step` pixels a frame, on the world's background."""

    def make(step: int = 2, size: int = 64, frames: int = 9, fps: Any = 8.0) -> LoadedClip:
        video = np.full((frames, size, size, 3), 237, np.uint8)
        side = size // 3
        for t in range(frames):
            left = 4 + step * t
            video[t, side : 2 * side, left : left + side] = (230, 26, 26)
        return LoadedClip("square", "a red square moves to the right", video, fps)

    return make


@pytest.fixture
def noise_clip() -> Callable[..., LoadedClip]:
    """Random pixels: full of texture, of any shape."""

    def make(frames: int = 9, height: int = 64, width: int = 64, fps: Any = 8.0, seed: int = 0) -> LoadedClip:
        video = np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
        return LoadedClip(f"noise-{seed}", "a red ball moves to the left", video, fps)

    return make
