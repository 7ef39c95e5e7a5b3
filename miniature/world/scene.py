"""One sampled scene: where everything is in every frame, whether right or with one law broken.

A scene is a stack of layers, back to front: props and subjects alike are a shape of one colour with a centre
and half extents per frame. The renderer needs nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from data.errors import DataError
from miniature.world import laws
from miniature.world.catalog import COLOURS, SHAPES, TEMPLATES, Subject, allows, caption
from miniature.world.draft import COLOUR_INDEX, SHAPE_INDEX, Draft
from miniature.world.trajectories import MOTIONS


@dataclass(frozen=True)
class Scene:
    """Layers back to front, each of shape [L, T]; lengths in stage sides, y down.

    x, y: centre of the bounding box; rx, ry: its half extents; visible: bool; colour: index into PALETTE;
    shape: index into SHAPES. violation: the law that is broken, or None.
    """

    template: str
    subjects: tuple[Subject, ...]
    violation: str | None
    x: NDArray[np.float32]
    y: NDArray[np.float32]
    rx: NDArray[np.float32]
    ry: NDArray[np.float32]
    visible: NDArray[np.bool_]
    colour: NDArray[np.int8]
    shape: NDArray[np.int8]

    @property
    def caption(self) -> str:
        """What the scene shows, or is to show."""
        return caption(self.template, self.subjects)

    @property
    def frames(self) -> int:
        return int(self.x.shape[1])


def sample_scene(
    template: str,
    subjects: Sequence[Subject],
    rng: np.random.Generator,
    violation: str | None = None,
    frames: int = 17,
) -> Scene:
    """A scene with its parameters drawn from `rng`; with `violation`, exactly that law is broken.

    Raises DataError for an unknown template, subjects that it does not allow, a violation that does not apply
    to it, or fewer than two frames.
    """
    entry = TEMPLATES.get(template)
    if entry is None:
        raise DataError(f"unknown template {template!r}; known: {', '.join(TEMPLATES)}")
    if not allows(entry, subjects):
        raise DataError(f"template {template!r} does not allow the subjects {', '.join(map(str, subjects))}")
    if violation is not None and violation not in entry.violations:
        raise DataError(
            f"{violation!r} does not apply to {template!r}; one of: {', '.join(entry.violations)}"
        )
    if frames < 2:
        raise DataError(f"a clip needs at least 2 frames, not {frames}")
    draft = Draft(subjects, rng, violation, _times(frames))
    MOTIONS[template](draft)
    layers = len(draft.layers) + (violation == "duplicates")
    place = np.empty((4, layers, frames), np.float32)
    look = np.empty((2, layers, frames), np.int8)
    for row, (x, y, rx, ry, colour, shape) in enumerate(draft.layers):
        place[0, row], place[1, row], place[2, row], place[3, row] = x, y, rx, ry
        look[0, row], look[1, row] = colour, shape
    visible = np.ones((layers, frames), np.bool_)
    if violation is not None:
        _break(draft, violation, place, look, visible)
    x, y, rx, ry = place
    return Scene(template, tuple(subjects), violation, x, y, rx, ry, visible, look[0], look[1])


@cache
def _times(frames: int) -> laws.Array:
    times = np.linspace(0.0, 1.0, frames)
    times.flags.writeable = False  # shared by all scenes
    return times


def random_subjects(template: str, rng: np.random.Generator) -> tuple[Subject, ...]:
    """Subjects that the template allows: any shapes of it, colours all different."""
    shapes = TEMPLATES[template].shapes
    colours = rng.permutation(len(COLOURS))[: len(shapes)]
    names = tuple(COLOURS)
    return tuple(
        Subject(names[colour], allowed[int(rng.random() * len(allowed))])
        for colour, allowed in zip(colours.tolist(), shapes, strict=True)
    )


def _break(
    draft: Draft,
    violation: str,
    place: NDArray[np.float32],
    look: NDArray[np.int8],
    visible: NDArray[np.bool_],
) -> None:
    """Violations that rewrite the finished tracks of subject 0. place [4, L, T], look [2, L, T]."""
    frames, row = place.shape[2], draft.rows[0]
    start, end = draft.span
    # From this frame on; early enough that much of the motion is still to come.
    cut = max(1, round((start + draft.draw(0.3, 0.55) * (end - start)) * (frames - 1)))
    if violation == "changes_colour":
        taken = {COLOUR_INDEX[subject.colour] for subject in draft.subjects}
        look[0, row, cut:] = _pick(draft, [c for c in range(len(COLOURS)) if c not in taken])
    elif violation == "changes_shape":
        old = draft.subjects[0].shape
        new = SHAPES[_pick(draft, [i for i, name in enumerate(SHAPES) if name != old])]
        ratio = laws.HALF_EXTENT[new] / laws.HALF_EXTENT[old]
        bottom = place[1, row, cut:] + place[3, row, cut:]
        place[2:, row, cut:] *= ratio
        place[1, row, cut:] = bottom - place[3, row, cut:]
        look[1, row, cut:] = SHAPE_INDEX[new]
    elif violation == "vanishes":
        visible[row, cut:] = False
    elif violation == "grows":
        scale = 1.0 + draft.draw(0.4, 0.6) * draft.t
        bottom = place[1, row] + place[3, row]
        place[2:, row] *= scale
        place[1, row] = bottom - place[3, row]
    elif violation == "jitters":
        size = draft.rng.uniform(0.05, 0.09, (2, frames))
        place[:2, row] += size * draft.rng.choice((-1.0, 1.0), (2, frames))
    elif violation == "duplicates":
        _duplicate(draft, place, look, visible, cut)


def _duplicate(
    draft: Draft,
    place: NDArray[np.float32],
    look: NDArray[np.int8],
    visible: NDArray[np.bool_],
    cut: int,
) -> None:
    """A copy of subject 0 appears, at rest, where the subject is not; it is the last layer."""
    row, copy = draft.rows[0], place.shape[1] - 1
    look[:, copy], place[2:, copy] = look[:, row], place[2:, row]
    visible[copy, :cut] = False
    # The emptiest of a few random places: farthest from all subjects at all times.
    rows = list(draft.rows.values())
    size = float(place[2:, row].max())
    trial = draft.rng.uniform(size + 0.02, 0.98 - size, (2, 24))
    away = np.abs(place[:2, rows].reshape(2, -1, 1) - trial[:, None]).max(axis=0).min(axis=0)
    place[:2, copy] = trial[:, away.argmax()][:, None]


def _pick(draft: Draft, choices: list[int]) -> int:
    return choices[int(draft.rng.random() * len(choices))]
