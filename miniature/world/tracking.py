"""What can be seen in a clip: one track per subject, the props, and coloured blobs that should not be there.

Pixels in, numbers out; no scene and no law is known here. A pixel is a blend of the background and one
colour: its share of the colour (alpha) and its distance from the blend line come from a table over 5-bit RGB,
so a blur or a slightly wrong colour costs nothing. Connected components are found once per colour for the
whole clip, on frames stacked into one tall image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from miniature.world.catalog import BACKGROUND, COLOURS, SHAPES, Subject
from miniature.world.laws import CENTROID

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]
Integers = NDArray[np.signedinteger[Any]]

SIDE = 64  # the stage is looked at in this many pixels, whatever the size of the frames
_ROWS = SIDE + 1  # in the tall image one empty row lies between frames
_OFF_LINE = 0.30  # RGB distance from the blend line that still counts as the colour
_COLOURFUL = 0.25  # max - min of RGB below which a pixel is grey
_HAND, _WOOD, _FLOOR = 101, 102, 103  # labels of grey levels; colours are 1, 2, ...
_SMALL = 0.12  # share of its usual area below which a subject is not there
_PATCH, _REACH = 20, 2.7  # silhouettes are compared in 20 x 20 cells over +-2.7 standard deviations
_SOFT = 0.12  # their blur, in standard deviations: about half a pixel


@dataclass(frozen=True)
class Track:
    """A subject over the frames, each [T]; lengths in stage sides, y down; nan where it is not seen.

    x, y, rx, ry: middle and half extents of the bounding box, from the moments of the silhouette; left,
    right, top, bottom: its edges in whole pixels. whole: seen, and not at the border of the stage.
    misfit [T, shapes]: share of the silhouette that differs from each shape, in its own proportions.
    """

    subject: Subject
    seen: Bools
    whole: Bools
    area: Floats
    x: Floats
    y: Floats
    rx: Floats
    ry: Floats
    left: Floats
    right: Floats
    top: Floats
    bottom: Floats
    misfit: Floats

    def __str__(self) -> str:
        return f"the {self.subject}"


@dataclass(frozen=True)
class Hand:
    """The dark prop, each [T]: area, and the edges that a palm can have (nan where there is none)."""

    area: Floats
    left: Floats
    bottom: Floats


@dataclass(frozen=True)
class Wood:
    """Table or box, which never move: usual area, y of the upper side, x of the right end (nan: none)."""

    area: float
    top: float
    right: float


@dataclass(frozen=True)
class Stranger:
    """A coloured blob that no subject accounts for; area in squares of the stage side."""

    colour: str
    frame: int
    area: float
    twin: bool  # of the colour of a subject: a second one


@dataclass(frozen=True)
class Sight:
    """Everything that is seen in a clip of T frames; t: time in [0, 1]."""

    t: Floats
    tracks: tuple[Track, ...]
    hand: Hand
    wood: Wood
    floor: float  # share of the lowest strip that is floor
    strangers: tuple[Stranger, ...]


@cache
def _tables() -> tuple[Bytes, NDArray[np.float32]]:
    """Label [32768] and alpha of each colour [colours, 32768] for RGB cut to 5 bits."""
    level = (np.arange(32) * 8 + 4) / 255
    rgb = np.stack(np.meshgrid(level, level, level, indexing="ij"), axis=-1).reshape(-1, 3)
    background = np.asarray(BACKGROUND)
    alpha, off = [], []
    for colour in COLOURS.values():
        line = np.asarray(colour) - background
        share = np.clip((rgb - background) @ line / (line @ line), 0.0, 1.0)
        alpha.append(share)
        off.append(np.linalg.norm(rgb - background - share[:, None] * line, axis=1))
    shares, distance = np.stack(alpha), np.stack(off)
    own = distance == distance.min(axis=0)
    shares *= own & (distance < _OFF_LINE)
    spread, value = np.ptp(rgb, axis=1), rgb.mean(axis=1)
    label = np.where((shares.max(axis=0) >= 0.5) & (spread > _COLOURFUL), shares.argmax(axis=0) + 1, 0)
    grey = (label == 0) & (spread < _COLOURFUL)
    for name, low, high in ((_HAND, 0.0, 0.26), (_WOOD, 0.26, 0.52), (_FLOOR, 0.52, 0.78)):
        label[grey & (value >= low) & (value < high)] = name
    return label.astype(np.uint8), shares.astype(np.float32)


@cache
def _silhouettes() -> Floats:
    """Each shape in units of its standard deviations, as soft as it is seen: [shapes, PATCH^2] in [0, 1]."""
    fine = 16  # samples a cell and axis
    n = _PATCH * fine
    # A blur adds its variance to the shape's, so that the sharp shape is smaller than its deviations say.
    u = ((np.arange(n) + 0.5) / n * 2 - 1) * _REACH * np.sqrt(1 + _SOFT**2)
    x, y = u[None, :], u[:, None]
    depth = (y + np.sqrt(8.0)) / (3 * np.sqrt(2.0))  # of a triangle: 0 at the apex, 1 at the base
    masks = {
        "ball": x * x + y * y < 4.0,
        "square": np.maximum(np.abs(x), np.abs(y)) < np.sqrt(3.0),
        "triangle": (depth < 1) & (np.abs(x) < np.sqrt(6.0) * depth),
    }
    blur = _SOFT / (u[1] - u[0])
    soft = [cv2.GaussianBlur(masks[name].astype(np.float32), (0, 0), blur) for name in SHAPES]
    return np.stack([cv2.resize(m, (_PATCH, _PATCH), interpolation=cv2.INTER_AREA).ravel() for m in soft])


# Half extents of the bounding box in standard deviations (x, y) of a uniformly filled shape.
_EXTENT = {
    "ball": (2.0, 2.0),
    "square": (np.sqrt(3.0), np.sqrt(3.0)),
    "triangle": (np.sqrt(6.0), np.sqrt(4.5)),
}


def stage(frames: Bytes) -> Bytes:
    """The stage of each frame: [T, H, W, 3] -> [T, SIDE, SIDE, 3]."""
    height, width = frames.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    cut = frames[:, top : top + side, left : left + side]
    if side == SIDE:
        return np.ascontiguousarray(cut)
    how = cv2.INTER_AREA if side > SIDE else cv2.INTER_LINEAR
    return np.stack([cv2.resize(frame, (SIDE, SIDE), interpolation=how) for frame in cut])


def look(frames: Bytes, subjects: Sequence[Subject]) -> Sight:
    """See a clip. frames: uint8 [T, H, W, 3], T >= 2; subjects: what to track, colours all different."""
    pixels = stage(frames)
    count = len(pixels)
    code = (pixels >> 3).astype(np.int32)
    code = (code[..., 0] << 10) | (code[..., 1] << 5) | code[..., 2]
    label_table, alpha_table = _tables()
    label = np.zeros((count, _ROWS, SIDE), np.uint8)
    label[:, :SIDE] = label_table[code]
    names = tuple(COLOURS)
    tracks, strangers = [], []
    for subject in subjects:
        index = names.index(subject.colour)
        track, twins = _follow(subject, label == index + 1, alpha_table[index][code])
        tracks.append(track)
        strangers += twins
    known = [names.index(subject.colour) + 1 for subject in subjects]
    strangers += _other_colours(label, known)
    wood = _wood(label == _WOOD)
    lowest = label[:, round(0.94 * SIDE) : SIDE]
    floor = float(np.median((lowest == _FLOOR).mean(axis=(1, 2))))
    hand = _hand(label == _HAND)
    return Sight(np.linspace(0.0, 1.0, count), tuple(tracks), hand, wood, floor, tuple(strangers))


def _components(mask: Bools) -> tuple[Integers, Integers, Integers]:
    """Components of all frames, mask [T, ROWS, SIDE]: labels of that shape, stats [N, 5], frame [N]."""
    tall = mask.reshape(-1, SIDE).view(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(tall, connectivity=8)
    by_pixel: Integers = np.asarray(labels, np.int32).reshape(mask.shape)
    by_component: Integers = np.asarray(stats, np.int64)
    return by_pixel, by_component, by_component[:, cv2.CC_STAT_TOP] // _ROWS


def _follow(subject: Subject, mask: Bools, alpha: Floats) -> tuple[Track, list[Stranger]]:
    """The largest component of the subject's colour in each frame is the subject; others are twins."""
    count = len(mask)
    labels, stats, frame = _components(mask)
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0  # the background
    best = np.zeros(count, np.int64)
    for i in np.argsort(areas, kind="stable"):  # the largest comes last
        if areas[i] > 0:
            best[frame[i]] = i
    largest = areas[best]
    usual = float(np.median(largest[largest > 0])) if (largest > 0).any() else 0.0
    seen = (largest >= max(_SMALL * usual, 6)) & (best > 0)
    twins = [
        Stranger(subject.colour, int(frame[i]), float(areas[i]) / SIDE**2, twin=True)
        for i in np.nonzero(areas > max(_SMALL * usual, 6))[0]
        if i != best[frame[i]]
    ]
    box = stats[best].astype(np.float64)
    left, width, height = box[:, cv2.CC_STAT_LEFT], box[:, cv2.CC_STAT_WIDTH], box[:, cv2.CC_STAT_HEIGHT]
    top = box[:, cv2.CC_STAT_TOP] - np.arange(count) * _ROWS
    right, bottom = left + width, top + height
    whole = seen & (left > 0) & (top > 0) & (right < SIDE) & (bottom < SIDE)

    # Soft silhouette: the component and a rim of one pixel, weighted with the share of the colour.
    core = (labels == best[:, None, None]) & mask
    around = cv2.dilate(core.reshape(-1, SIDE).view(np.uint8), np.ones((3, 3), np.uint8))
    soft = alpha * around.reshape(mask.shape)[:, :SIDE]
    x, y, sx, sy, area = _moments(soft)
    kx, ky = _EXTENT[subject.shape]
    track = Track(
        subject=subject,
        seen=seen,
        whole=whole,
        area=area,
        x=np.where(seen, x, np.nan),
        y=np.where(seen, y - CENTROID[subject.shape] * ky * sy, np.nan),
        rx=np.where(seen, kx * sx, np.nan),
        ry=np.where(seen, ky * sy, np.nan),
        left=np.where(seen, left / SIDE, np.nan),
        right=np.where(seen, right / SIDE, np.nan),
        top=np.where(seen, top / SIDE, np.nan),
        bottom=np.where(seen, bottom / SIDE, np.nan),
        misfit=_misfit(soft, seen, x, y, sx, sy),
    )
    return track, twins


def _moments(soft: Floats) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Centroid, standard deviations and area of silhouettes [T, SIDE, SIDE], in stage sides."""
    at = (np.arange(SIDE) + 0.5) / SIDE
    columns, rows = soft.sum(axis=1), soft.sum(axis=2)
    mass = np.maximum(columns.sum(axis=1), 1e-6)
    x, y = columns @ at / mass, rows @ at / mass
    sx = np.sqrt(np.maximum(columns @ at**2 / mass - x**2, 1e-6))
    sy = np.sqrt(np.maximum(rows @ at**2 / mass - y**2, 1e-6))
    return x, y, sx, sy, mass / SIDE**2


def _misfit(soft: Floats, seen: Bools, x: Floats, y: Floats, sx: Floats, sy: Floats) -> Floats:
    """[T, shapes]: share of each normalised silhouette that differs from each shape; nan where not seen."""
    shapes = _silhouettes()
    out = np.full((len(soft), len(shapes)), np.nan)
    where = np.nonzero(seen)[0]
    if len(where) == 0:
        return out
    patches = []
    for f in where:
        step = 2 * _REACH / _PATCH * np.array([sx[f], sy[f]]) * SIDE
        first = np.array([x[f], y[f]]) * SIDE - 0.5 + step * (0.5 - _PATCH / 2)
        matrix = np.array([[step[0], 0, first[0]], [0, step[1], first[1]]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        patches.append(cv2.warpAffine(soft[f], matrix, (_PATCH, _PATCH), flags=flags).ravel())
    differ = np.abs(np.stack(patches)[:, None] - shapes[None]).sum(axis=2)
    out[where] = differ / shapes.sum(axis=1)
    return out


def _other_colours(label: Bytes, known: Sequence[int]) -> list[Stranger]:
    """Blobs of colours that no subject has. Opened first: the rim between two subjects is a thin line."""
    other = (label >= 1) & (label <= len(COLOURS)) & ~np.isin(label, known)
    if not other.any():
        return []
    thick = cv2.erode(other.reshape(-1, SIDE).view(np.uint8), np.ones((3, 3), np.uint8)).view(np.bool_)
    labels, stats, frame = _components(thick.reshape(label.shape))
    names = tuple(COLOURS)
    found = []
    for i in range(1, len(stats)):
        if stats[i, cv2.CC_STAT_AREA] >= 4:
            colour = names[int(np.median(label[labels == i])) - 1]
            found.append(Stranger(colour, int(frame[i]), stats[i, cv2.CC_STAT_AREA] / SIDE**2, twin=False))
    return found


def _hand(mask: Bools) -> Hand:
    area = mask.sum(axis=(1, 2)) / SIDE**2
    columns: Bools = np.any(mask, axis=1)
    rows: Bools = np.any(mask, axis=2)
    left, bottom = columns.argmax(axis=1), _ROWS - rows[:, ::-1].argmax(axis=1)
    seen = area >= 0.003
    return Hand(area, np.where(seen, left / SIDE, np.nan), np.where(seen, bottom / SIDE, np.nan))


def _wood(mask: Bools) -> Wood:
    """What is wood in most frames; the rim of the hand has the same grey and moves."""
    usual = mask.mean(axis=0) > 0.5
    rows, columns = usual.sum(axis=1) >= 8, usual.sum(axis=0) > 0
    area = float(usual.sum()) / SIDE**2
    if not rows.any():
        return Wood(area, np.nan, np.nan)
    return Wood(area, float(rows.argmax()) / SIDE, float(SIDE - columns[::-1].argmax()) / SIDE)
