"""Contact sheets: a clip as one picture, for reports, for print and for a quick look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

GAP = 2
"""Pixels between two pictures and between two rows."""
GREY = 128
"""The gap's grey level (0 to 255): seen on white paper and on a dark screen."""


def sheet(clips: Sequence[NDArray[np.uint8]], columns: int = 6, height: int = 64) -> bytes:
    """One row per clip, `columns` frames evenly spaced in time from the first to the last.

    Args:
        clips: frames of each clip, uint8 RGB [T, H, W, 3]; lengths and sizes may differ.
        columns: pictures a row, at least 1; a clip with fewer frames repeats some.
        height: height of each picture in pixels; its width follows the clip's aspect.

    Returns:
        A PNG file (8-bit RGB). Same input, same bytes.

    Raises:
        ValueError: no clips, no columns, or frames of another shape or dtype.
    """
    import cv2
    import numpy as np

    if not clips or columns < 1 or height < 1:
        raise ValueError("a contact sheet needs at least one clip, one column and one pixel of height")
    rows = []
    for frames in clips:
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not len(frames):
            raise ValueError(f"frames must be uint8 [T, H, W, 3], got {frames.dtype} {list(frames.shape)}")
        picked = frames[np.linspace(0, len(frames) - 1, columns).round().astype(int)]
        width = max(1, round(height * frames.shape[2] / frames.shape[1]))
        # INTER_AREA when shrinking avoids aliasing; cubic when growing keeps small clips readable.
        how = cv2.INTER_AREA if height < frames.shape[1] else cv2.INTER_CUBIC
        rows.append([cv2.resize(frame, (width, height), interpolation=how) for frame in picked])

    page_width = max(columns * row[0].shape[1] for row in rows) + (columns - 1) * GAP
    page = np.full((len(rows) * height + (len(rows) - 1) * GAP, page_width, 3), GREY, np.uint8)
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            top, left = r * (height + GAP), c * (picture.shape[1] + GAP)
            page[top : top + height, left : left + picture.shape[1]] = picture
    done, png = cv2.imencode(".png", cv2.cvtColor(page, cv2.COLOR_RGB2BGR))
    if not done:
        raise ValueError(f"OpenCV could not write a PNG of {page.shape[1]}x{page.shape[0]} pixels")
    return bytes(png)
