"""What a video file says about itself, without decoding it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

import av


class Header(NamedTuple):
    codec: str
    pix_fmt: str
    frames: int
    width: int
    height: int
    fps: float


def probe(source: Path | bytes) -> Header:
    with av.open(io.BytesIO(source) if isinstance(source, bytes) else str(source)) as container:
        stream = container.streams.video[0]
        about = stream.codec_context
        assert stream.average_rate is not None
        return Header(
            about.name,
            str(about.pix_fmt),
            stream.frames,
            about.width,
            about.height,
            float(stream.average_rate),
        )
