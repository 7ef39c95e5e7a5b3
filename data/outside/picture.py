"""One picture of a file, as it is meant to be seen, at the size that is asked for."""

from __future__ import annotations

import math
import struct
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import numpy.typing as npt

from data.outside.settings import ConversionSettings

if TYPE_CHECKING:
    import av

Picture = npt.NDArray[np.uint8]
"""uint8 RGB [H, W, 3]."""

# Transfer functions of high dynamic range: without a tone mapping, a matter of taste, they look grey.
_HDR: Final = {16: "PQ", 18: "HLG"}
_ONE: Final = 1 << 16  # of a display matrix, ISO/IEC 14496-12, 6.2.2


class Pictures:
    """Brings the pictures of one file to the form that `settings` ask for.

    Args:
        settings: size and fit.
        aspect: width of a stored pixel over its height.

    Attributes:
        done: what it does to them, in words; known after the first.
        rotation: by which the first is turned, in degrees against the clock.
    """

    def __init__(self, settings: ConversionSettings, aspect: Fraction) -> None:
        from av.video.reformatter import VideoReformatter

        self._settings = settings
        self._aspect = aspect
        # One converter for all: to set one up costs more than to convert a small frame.
        self._convert = VideoReformatter().reformat
        self._stored: tuple[int, int] | None = None
        self._turn = (False, False, False)
        self.done: list[str] = []
        self.rotation = 0

    def __call__(self, frame: av.VideoFrame) -> Picture:
        """The picture. Raises ValueError: it cannot be shown as it is meant, or not at the size asked for."""
        if self._stored is None:
            self._begin(frame)
        if (frame.width, frame.height) != self._stored:
            raise ValueError("its pictures differ in size")
        if frame.interlaced_frame:
            raise ValueError("it is interlaced: make whole pictures of it first")
        across, flip, flop = self._turn
        wide, high = self._scaled[::-1] if across else self._scaled
        shrinks = wide * high < frame.width * frame.height
        found = self._convert(
            frame, format="rgb24", width=wide, height=high, interpolation="AREA" if shrinks else "BICUBIC"
        )
        picture: Picture = np.asarray(found.to_ndarray(), np.uint8)
        if across:
            picture = picture.transpose(1, 0, 2)
        picture = picture[:: -1 if flop else 1, :: -1 if flip else 1]
        return np.ascontiguousarray(self._fitted(picture))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of what is made, known after the first picture was begun."""
        return self._size

    def _begin(self, frame: av.VideoFrame) -> None:
        self._stored = (frame.width, frame.height)
        if frame.color_trc in _HDR:
            raise ValueError(f"its range is high ({_HDR[frame.color_trc]}): map its tones to SDR first")
        matrix = frame.side_data.get("DISPLAYMATRIX")
        if matrix is not None:
            self._turn = _turn(bytes(cast(Any, matrix)))
            self.rotation = frame.rotation % 360
        across = self._turn[0]
        wide, high = max(1, round(frame.width * self._aspect)), frame.height
        if wide != frame.width:
            self.done.append("pixels made square")
        if self._turn != (False, False, False):
            self.done.append(f"turned by {self.rotation} degrees" if self.rotation else "mirrored")
        seen = (high, wide) if across else (wide, high)
        asked = self._settings
        self._size = seen if asked.width is None or asked.height is None else (asked.width, asked.height)
        self._scaled = seen
        if self._size != seen:
            self._scale(seen)
        if frame.format.components and frame.format.components[0].bits > 8:
            self.done.append(f"{frame.format.components[0].bits} bits made 8")
        if any(component.is_alpha for component in frame.format.components):
            self.done.append("alpha left out")

    def _scale(self, seen: tuple[int, int]) -> None:
        fit = self._settings.fit
        (wide, high), (width, height) = self._size, seen
        if fit == "exact":
            raise ValueError(f"its pictures are {width}x{height}, not {wide}x{high}")
        if fit == "stretch":
            self._scaled = self._size
        else:
            by = (max if fit == "crop" else min)(Fraction(wide, width), Fraction(high, height))
            whole = math.ceil if fit == "crop" else math.floor
            self._scaled = (max(1, whole(width * by)), max(1, whole(height * by)))
        steps = [] if self._scaled == seen else ["scaled"]
        if self._scaled != self._size:
            steps.append("cut" if fit == "crop" else "padded")
        self.done.append(f"{' and '.join(steps)} from {width}x{height} to {wide}x{high}")

    def _fitted(self, picture: Picture) -> Picture:
        wide, high = self._size
        height, width = picture.shape[:2]
        top, left = abs(height - high) // 2, abs(width - wide) // 2
        if height > high or width > wide:
            picture = picture[top : top + high, left : left + wide]
        elif (height, width) != (high, wide):
            canvas = np.zeros((high, wide, 3), np.uint8)
            canvas[top : top + height, left : left + width] = picture
            picture = canvas
        return picture


def _turn(matrix: bytes) -> tuple[bool, bool, bool]:
    """What a display matrix asks for: whether rows and columns change places, and then mirroring of x and y.

    Raises ValueError: it is no turn by quarters.
    """
    a, b, _, c, d, *_ = struct.unpack("=9i", matrix)
    across = not a and not d
    one, other = (b, c) if across else (a, d)
    if (not across and (b or c)) or abs(one) != _ONE or abs(other) != _ONE:
        raise ValueError("it is turned, or stretched, by its display matrix, and not by quarters")
    return (True, c < 0, b < 0) if across else (False, a < 0, d < 0)
