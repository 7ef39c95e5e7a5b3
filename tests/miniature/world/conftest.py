"""Clips of the world for its tests: sampled, rendered, ready to be judged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from miniature.world.catalog import TEMPLATES, caption
from miniature.world.render import render
from miniature.world.scene import random_subjects, sample_scene

Clips = list[tuple[npt.NDArray[np.uint8], str]]


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


@pytest.fixture
def clips() -> Callable[..., Clips]:
    """Frames [T, H, W, 3] and captions of `count` scenes of a template; different for each seed."""

    def make(
        template: str,
        violation: str | None = None,
        count: int = 1,
        seed: int = 0,
        size: Any = 64,
        frames: int = 17,
    ) -> Clips:
        rng = np.random.default_rng([seed, list(TEMPLATES).index(template)])
        subjects = [random_subjects(template, rng) for _ in range(count)]
        scenes = [sample_scene(template, s, rng, violation, frames) for s in subjects]
        pixels = render(scenes, size).numpy()
        return [(pixels[i], caption(template, s)) for i, s in enumerate(subjects)]

    return make
