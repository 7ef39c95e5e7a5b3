"""Scenes to pixels, and the true optical flow between two frames.

One pass over a batch: every layer of every scene and frame is painted by tensor operations, in chunks that
bound memory. Coverage of a pixel is exact for rectangles and first-order in the distance to the edge for the
other shapes, so the picture is anti-aliased and the same at every size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from miniature.world.catalog import BACKGROUND, COLOURS, MATTE, PROPS, SHAPES
from miniature.world.scene import Scene

Size = int | tuple[int, int]

_PALETTE = (*COLOURS.values(), *PROPS.values())
_PIXELS_A_CHUNK = {"cpu": 1 << 22, "cuda": 1 << 26}  # of all frames together; x 12 bytes for the canvas
_FIELDS = ("x", "y", "rx", "ry")


@dataclass(frozen=True)
class _Stack:
    """Scenes side by side. place [4, B, L, T] float32 (x, y, rx, ry), the others [B, L, T]."""

    place: Tensor
    visible: Tensor
    colour: Tensor
    shape: Tensor


def _stack(scenes: Sequence[Scene], device: torch.device) -> _Stack:
    """Scenes with fewer layers are padded with invisible ones."""
    layers, frames = max(len(scene.x) for scene in scenes), scenes[0].frames
    if any(scene.frames != frames for scene in scenes):
        raise ValueError("scenes of one batch must have the same number of frames")
    place = np.ones((4, len(scenes), layers, frames), np.float32)
    visible = np.zeros((len(scenes), layers, frames), np.bool_)
    look = np.zeros((2, len(scenes), layers, frames), np.int64)
    for b, scene in enumerate(scenes):
        n = len(scene.x)
        for i, name in enumerate(_FIELDS):
            place[i, b, :n] = getattr(scene, name)
        visible[b, :n], look[0, b, :n], look[1, b, :n] = scene.visible, scene.colour, scene.shape
    look_on = torch.from_numpy(look).to(device)
    return _Stack(
        torch.from_numpy(place).to(device), torch.from_numpy(visible).to(device), look_on[0], look_on[1]
    )


@dataclass(frozen=True)
class _Grid:
    """Pixel centres in stage sides: x [W], y [H]; pixels a side; which pixels are on the stage [H, W]."""

    x: Tensor
    y: Tensor
    scale: float
    inside: Tensor


def _grid(size: Size, device: torch.device) -> _Grid:
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 8:
        raise ValueError(f"frames of {height}x{width} are too small: at least 8x8")
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    x = (torch.arange(width, device=device, dtype=torch.float32) - left + 0.5) / side
    y = (torch.arange(height, device=device, dtype=torch.float32) - top + 0.5) / side
    inside = ((x > 0) & (x < 1))[None, :] & ((y > 0) & (y < 1))[:, None]
    return _Grid(x, y, float(side), inside)


def _coverage(shape: int, place: Tensor, grid: _Grid) -> Tensor:
    """Share of each pixel that a shape covers. place [4, N] -> [N, H, W] in [0, 1]."""
    cx, cy, rx, ry = (v[:, None] for v in place)
    dx, dy = grid.x - cx, grid.y - cy  # [N, W], [N, H]
    if SHAPES[shape] == "square":
        half = 0.5 / grid.scale
        wide = torch.minimum(dx + half, rx) - torch.maximum(dx - half, -rx)  # overlap of pixel and side
        high = torch.minimum(dy + half, ry) - torch.maximum(dy - half, -ry)
        wide, high = (wide * grid.scale).clamp_(0, 1), (high * grid.scale).clamp_(0, 1)
        overlap: Tensor = high[:, :, None] * wide[:, None, :]
        return overlap
    if SHAPES[shape] == "ball":
        # f = |p/r|; the distance to the ellipse f = 1 is about (1 - f) f / |grad(f^2) / 2|.
        ux, uy = (dx / rx)[:, None, :], (dy / ry)[:, :, None]
        f = (ux * ux + uy * uy).sqrt_()
        slope = ((ux / rx[:, None]) ** 2 + (uy / ry[:, None]) ** 2).sqrt_().clamp_(min=1e-6)
        distance = (1 - f) * f / slope + (f < 1e-3)  # at the very centre the quotient is 0 / 0
        cover: Tensor = (distance * grid.scale + 0.5).clamp_(0, 1)
        return cover
    # A standing triangle: below the two slanted sides and above the base.
    base = ((ry - dy) * grid.scale + 0.5).clamp(0, 1)[:, :, None]
    # Side through (0, -ry) and (rx, ry): |dx| <= (dy + ry) rx / (2 ry).
    reach = ((dy + ry) * rx / (2 * ry))[:, :, None] - dx.abs()[:, None, :]
    slant = 2 * ry / (rx * rx + 4 * ry * ry).sqrt() * grid.scale
    inner: Tensor = (reach * slant[:, :, None] + 0.5).clamp_(0, 1) * base
    return inner


def _paint(stack: _Stack, grid: _Grid) -> Tensor:
    """uint8 [B, T, H, W, 3]."""
    batch, layers, frames = stack.visible.shape
    height, width = grid.inside.shape
    device = grid.x.device
    palette = torch.tensor(_PALETTE, device=device)
    background, matte = (torch.tensor(v, device=device)[:, None, None] for v in (BACKGROUND, MATTE))
    canvas = background.expand(batch * frames, 3, height, width).clone()
    place = stack.place.transpose(2, 3).reshape(4, -1, layers)
    visible, colour, shape = (
        v.transpose(1, 2).reshape(-1, layers) for v in (stack.visible, stack.colour, stack.shape)
    )
    for layer in range(layers):
        for kind in range(len(SHAPES)):
            at = (visible[:, layer] & (shape[:, layer] == kind)).nonzero()[:, 0]
            if len(at):
                cover = _coverage(kind, place[:, at, layer], grid)[:, None]
                ink = palette[colour[at, layer]][:, :, None, None]
                canvas[at] = torch.lerp(canvas[at], ink.expand(-1, -1, height, width), cover)
    canvas = torch.where(grid.inside, canvas, matte)
    pixels = (canvas * 255 + 0.5).clamp_(0, 255).to(torch.uint8)
    return pixels.view(batch, frames, 3, height, width).permute(0, 1, 3, 4, 2).contiguous()


@torch.no_grad()
def render(scenes: Sequence[Scene], size: Size = 64, device: str | torch.device = "cpu") -> Tensor:
    """Frames of scenes: uint8 [B, T, H, W, 3] on `device`, RGB.

    size: side of a square frame, or (height, width); the stage is the largest centred square.
    Raises ValueError for no scenes, scenes of different lengths, or frames under 8 pixels.
    """
    if not scenes:
        raise ValueError("no scenes to render")
    device = torch.device(device)
    grid = _grid(size, device)
    step = max(1, _PIXELS_A_CHUNK.get(device.type, 1 << 22) // (scenes[0].frames * grid.inside.numel()))
    parts = [_paint(_stack(scenes[i : i + step], device), grid) for i in range(0, len(scenes), step)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


@torch.no_grad()
def true_flow(
    scenes: Sequence[Scene],
    t0: int | Sequence[int],
    t1: int | Sequence[int],
    size: Size = 64,
    device: str | torch.device = "cpu",
) -> tuple[Tensor, Tensor]:
    """Exact displacement from frame t0 to frame t1 of what is seen at each pixel of frame t0.

    t0, t1: frame indices, one for all scenes or one for each. Returns flow [B, 2, H, W] float32 in pixels
    (x, y) and valid [B, H, W] bool. The topmost layer that covers a pixel to more than half owns it; a point
    of it moves as its shape does: p1 = c1 + (p0 - c0) r1 / r0. Not valid: the owner is gone or has another
    colour or shape in frame t1, or the point leaves the stage. The background stays where it is.
    """
    device = torch.device(device)
    grid, stack = _grid(size, device), _stack(scenes, device)
    batch, layers = stack.visible.shape[:2]

    def at(values: Tensor, t: int | Sequence[int]) -> Tensor:
        """One frame of each scene: [..., B, L, T] -> [..., B, L]."""
        index = torch.as_tensor(t, device=device).expand(batch)[:, None, None]
        index = index.expand(*values.shape[:-1], 1)
        return values.gather(-1, index)[..., 0]

    before, after = at(stack.place, t0), at(stack.place, t1)
    seen, shape = at(stack.visible, t0), at(stack.shape, t0)
    kept = (
        at(stack.visible, t1)
        & (at(stack.colour, t1) == at(stack.colour, t0))
        & (at(stack.shape, t1) == shape)
    )
    moved = torch.zeros(batch, 2, *grid.inside.shape, device=device)
    valid = grid.inside.expand(batch, -1, -1).clone()
    for layer in range(layers):
        for kind in range(len(SHAPES)):
            n = (seen[:, layer] & (shape[:, layer] == kind)).nonzero()[:, 0]
            if not len(n):
                continue
            p0, p1 = before[:, n, layer, None], after[:, n, layer, None]
            owned = _coverage(kind, p0[..., 0], grid) > 0.5
            x1 = p1[0] + (grid.x - p0[0]) * p1[2] / p0[2]  # [n, W]
            y1 = p1[1] + (grid.y - p0[1]) * p1[3] / p0[3]  # [n, H]
            dx, dy = (x1 - grid.x)[:, None, :], (y1 - grid.y)[:, :, None]
            step = torch.stack([dx.expand_as(owned), dy.expand_as(owned)], dim=1)
            stays = ((x1 > 0) & (x1 < 1))[:, None, :] & ((y1 > 0) & (y1 < 1))[:, :, None]
            moved[n] = torch.where(owned[:, None], step * grid.scale, moved[n])
            valid[n] = torch.where(owned, stays & kept[n, layer, None, None], valid[n])
    return moved, valid & grid.inside
