"""Which frames a judge sees, and the bytes in which they travel: PNG or PPM, so that nothing is lost."""

from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rewards.base import LoadedClip, frame_indices, known_fps
from rewards.judge.rubric import Frames


@dataclass(frozen=True)
class Timing:
    """When sampled frames are: Qwen2.5-VL's temporal positions and Qwen3-VL's written time stamps follow it.

    Attributes:
        fps: frames per second of the video that was sampled.
        indices: which of its frames were.
        length: how many it has, at least as many as `indices`.
    """

    fps: float
    indices: tuple[int, ...]
    length: int


@dataclass(frozen=True, eq=False)
class Segment:
    """Frames of one clip that are judged together.

    Attributes:
        indices: their numbers in the stored file, rising.
        frames: uint8 [F, H, W, 3], RGB.
        timing: when they are, counted from the first; None where they travel as pictures, without a clock.
        seconds: from when to when the segment is in the stored file, if the clip was cut by seconds.
    """

    indices: tuple[int, ...]
    frames: NDArray[np.uint8]
    timing: Timing | None
    seconds: tuple[float, float] | None = None

    @property
    def media_id(self) -> str:
        """Digest of the pixels and their times: what a server may remember these frames by."""
        told = f"{self.frames.shape};{self.timing}"
        return hashlib.sha256(told.encode() + np.ascontiguousarray(self.frames).tobytes()).hexdigest()


def segments(clip: LoadedClip, spec: Frames) -> list[Segment]:
    """The segments of a clip: the whole of it, or pieces of `segment_seconds` (the last may be shorter).

    A segment always has `spec.count` frames: one with fewer shows frames more than once, because the number
    of frames decides the number of tokens and so what the model was trained on. A last piece of less than
    half a segment is part of the one before.

    Raises:
        CannotJudge: the clip's frame rate is unknown, and segments are asked for, or a video, which has a
            clock.
    """
    total = len(clip.frames)
    fps = None if spec.segment_seconds is None and spec.media == "images" else known_fps(clip)
    if fps is None or spec.segment_seconds is None:
        pieces = [(0, total)]
    else:
        length = max(1, round(spec.segment_seconds * fps))
        starts = list(range(0, total, length))
        if len(starts) > 1 and 2 * (total - starts[-1]) < length:
            starts.pop()
        pieces = list(zip(starts, [*starts[1:], total], strict=True))
    found = []
    for start, end in pieces:
        seen = spread(end - start, spec.count)
        indices = tuple(start + i for i in seen)
        seconds = (start / fps, end / fps) if fps is not None and spec.segment_seconds is not None else None
        timing = None
        if fps is not None and spec.media == "video":
            # Shown more than once, a frame is a frame more: no library takes a video of fewer than it has.
            timing = Timing(fps, tuple(seen), max(end - start, len(seen)))
        found.append(Segment(indices, clip.frames[list(indices)], timing, seconds))
    return found


def spread(frames: int, wanted: int) -> list[int]:
    """`wanted` frame numbers, evenly spaced over `frames`, first and last included; repeated if too few."""
    if wanted <= frames:
        return frame_indices(frames, wanted)
    return [round(i * (frames - 1) / (wanted - 1)) for i in range(wanted)]


def png(frame: NDArray[np.uint8]) -> bytes:
    """One frame, uint8 [H, W, 3], as a PNG file."""
    from PIL import Image

    buffer = io.BytesIO()
    # Level 1: the bytes travel over a local network, and the pixels are the same.
    Image.fromarray(frame).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def ppm(frame: NDArray[np.uint8]) -> bytes:
    """One frame, uint8 [H, W, 3], as a binary PPM file: a line of text and the pixels as they are."""
    height, width, _ = frame.shape
    return b"P6 %d %d 255\n" % (width, height) + frame.tobytes()


def media_parts(
    segment: Segment, media: str, plain: bool = False, remembered: bool = False, with_data: bool = True
) -> list[dict[str, Any]]:
    """The segment as content parts of a chat request.

    A list of picture files under the type video/jpeg is what vLLM takes for frames that were sampled already:
    it opens each with PIL whatever the type says, and takes no sample of its own.

    Args:
        segment: the frames.
        media: "video" or "images".
        plain: PPM, which a server on this machine opens in a fifth of PNG's time, and we write in a seventh;
            where bytes travel far, PNG.
        remembered: with ids for vLLM's cache of processed media.
        with_data: False: by these ids alone.
    """
    count = 1 if media == "video" else len(segment.frames)
    urls: list[dict[str, str] | None] = [None] * count
    if with_data:
        kind, encode = ("x-portable-pixmap", ppm) if plain else ("png", png)
        files = [base64.b64encode(encode(frame)).decode("ascii") for frame in segment.frames]
        if media == "video":
            urls = [{"url": "data:video/jpeg;base64," + ",".join(files)}]
        else:
            urls = [{"url": f"data:image/{kind};base64,{file}"} for file in files]
    name = "video_url" if media == "video" else "image_url"
    parts: list[dict[str, Any]] = [{"type": name, name: url} for url in urls]
    if remembered:
        for place, part in enumerate(parts):
            part["uuid"] = f"{segment.media_id[:40]}-{place}"
    return parts
