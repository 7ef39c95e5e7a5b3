"""What the miniature's judges are trained and measured on: scenes, their frames, captions and true flow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from miniature.world.catalog import SHAPES, TEMPLATES
from miniature.world.draft import PALETTE
from miniature.world.render import true_flow
from miniature.world.scene import Scene, random_subjects, sample_scene

Floats = NDArray[np.float64]

_CHUNK: Final = 256  # scenes rendered at a time: bounds the memory of the renderer's masks
_FRAMES: Final = 17


def world_scenes(count: int, seed: int, broken: float = 0.0) -> list[Scene]:
    """Scenes of all templates in turn, random subjects, a share `broken` of them breaking one law.

    The same arguments give the same scenes; another seed gives others.
    """
    rng = np.random.default_rng(seed)
    names = tuple(TEMPLATES)
    scenes = []
    for index in range(count):
        template = TEMPLATES[names[index % len(names)]]
        violation = str(rng.choice(template.violations)) if rng.random() < broken else None
        subjects = random_subjects(template.name, rng)
        scenes.append(sample_scene(template.name, subjects, rng, violation, frames=_FRAMES))
    return scenes


def flying_scenes(count: int, seed: int) -> list[Scene]:
    """Many shapes that fly about in all directions, in the look of the world and under none of its laws.

    Where little moves, "nothing moves" is a good answer, and a flow network stays there; here it is a bad one
    (the idea of Flying Chairs: Dosovitskiy et al., 2015, arXiv 1504.06852).
    """
    rng = np.random.default_rng(seed)
    t = np.arange(_FRAMES)
    scenes = []
    for _ in range(count):
        one = (int(rng.integers(4, 11)), 1)  # of each layer
        angle = rng.uniform(0, 2 * np.pi, one)
        speed = rng.uniform(-0.03, 0.11, one).clip(min=0)  # stage sides a frame; some stand still
        pulse = 1 + rng.uniform(-0.2, 0.2, one) * np.sin(rng.uniform(0.1, 0.4, one) * t)
        place = (
            _between(rng.uniform(0, 1, one) + speed * np.cos(angle) * t),
            _between(rng.uniform(0, 1, one) + speed * np.sin(angle) * t),
            rng.uniform(0.05, 0.2, one) * pulse,
            rng.uniform(0.05, 0.2, one) / pulse,
        )
        look = (rng.integers(0, len(kinds), one).repeat(_FRAMES, axis=1) for kinds in (PALETTE, SHAPES))
        x, y, rx, ry = (values.astype(np.float32) for values in place)
        colour, shape = (values.astype(np.int8) for values in look)
        scenes.append(Scene("flying", (), None, x, y, rx, ry, np.ones_like(x, np.bool_), colour, shape))
    return scenes


def meanings_of(scenes: Sequence[Scene]) -> list[int]:
    """A number for what each caption says; exchangeable subjects ("a red and a blue ball") have no order."""
    numbers: dict[tuple[str, tuple[object, ...]], int] = {}
    found = []
    for scene in scenes:
        subjects: Sequence[object] = scene.subjects
        if TEMPLATES[scene.template].symmetric:
            subjects = sorted(scene.subjects, key=str)
        found.append(numbers.setdefault((scene.template, tuple(subjects)), len(numbers)))
    return found


@dataclass(frozen=True, eq=False)
class Flows:
    """M pairs of frames with the true flow between them.

    Attributes:
        clip, first, second: int64 [M]: frames `first` and `second` of clip number `clip`.
        flow: float16 [M, 2, size, size], from first to second frame, in pixels of `size` (x right, y down).
        valid: bool [M, size, size]; false where what is seen first is not to be seen second.
    """

    clip: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor
    flow: torch.Tensor
    valid: torch.Tensor


def flows_of(
    scenes: Sequence[Scene], pairs: int, strides: Sequence[int], size: int, seed: int, device: str
) -> Flows:
    """`pairs` random pairs of frames of each scene, a random one of `strides` apart, with their flow."""
    rng = np.random.default_rng(seed)
    stride = rng.choice(strides, (pairs, len(scenes)))
    first = rng.integers(0, _FRAMES - stride)
    moved, kept = [], []
    for starts, ends in zip(first.tolist(), (first + stride).tolist(), strict=True):
        for at in range(0, len(scenes), _CHUNK):
            some = slice(at, at + _CHUNK)
            flow, valid = true_flow(scenes[some], starts[some], ends[some], size=size, device=device)
            moved.append(flow.half())
            kept.append(valid)
    return Flows(
        clip=torch.arange(len(scenes), device=device).repeat(pairs),
        first=torch.from_numpy(first).flatten().to(device),
        second=torch.from_numpy(first + stride).flatten().to(device),
        flow=torch.cat(moved),
        valid=torch.cat(kept),
    )


def pick(frames: torch.Tensor, rows: torch.Tensor, count: int, random: torch.Generator) -> torch.Tensor:
    """`count` random frames of each clip in `rows`: float32 [B, count, 3, H, W] in [0, 1]."""
    times = torch.randint(frames.shape[1], (len(rows), count), device=frames.device, generator=random)
    return frames[rows[:, None], times].permute(0, 1, 4, 2, 3).float() / 255


def augment(frames: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """What models and codecs do to frames [B, F, 3, H, W] in [0, 1]: noise, blur and brightness, by clip.

    Generated clips are never as clean as rendered ones; a judge that has only seen clean ones reads the
    difference.
    """
    batch, device = len(frames), frames.device

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(batch, 1, 1, 1, 1, device=device, generator=random)

    flat = functional.pad(frames.flatten(0, 1), (1, 1, 1, 1), mode="replicate")
    blurred = functional.avg_pool2d(flat, 3, stride=1).view_as(frames)
    frames = torch.lerp(frames, blurred, uniform(-0.5, 1.0).clamp(min=0))
    frames = frames * uniform(0.95, 1.05) + uniform(-0.03, 0.03)
    noise = torch.randn(frames.shape, device=device, generator=random)
    return (frames + noise * uniform(-0.03, 0.06).clamp(min=0)).clamp(0, 1)


def _between(x: Floats) -> Floats:
    """Reflected at 0 and at 1: a triangle wave."""
    return np.asarray(1 - np.abs(np.mod(x, 2) - 1))
