"""Videos: mp4 files, as FFmpeg decodes them. Its code is native: what the fuzzer steers by is our side of it."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np

from data.outside.convert import convert
from data.outside.settings import ConversionSettings
from data.video import VideoSettings, decode_mp4, encode_mp4, web_copy
from tests.fuzz.target import Target

# Names of boxes, and numbers in which headers say sizes, counts and durations.
_BOXES = ("ftyp", "moov", "mvhd", "trak", "tkhd", "edts", "elst", "mdia", "mdhd", "hdlr", "minf", "stbl", "stsd",
          "avc1", "avcC", "stts", "ctts", "stsc", "stsz", "stco", "co64", "stss", "mdat", "moof", "traf", "trun", "tfhd",
          "mvex", "trex", "sidx", "free", "vide", "soun", "mp4a", "hev1", "av01", "vp09", "jpeg", "raw ", "pasp", "colr",
          "sbgp", "sgpd", "udta", "meta", "\x7f\xff\xff\xff", "\xff\xff\xff\xff", "\x00\x01\x86\xa0")  # fmt: skip


def _clips() -> Iterator[bytes]:
    rng = np.random.default_rng(0)
    moving = np.zeros((5, 16, 16, 3), np.uint8)
    for place, frame in enumerate(moving):
        frame[4:8, place : place + 4] = 255
    yield encode_mp4(moving, 8.0)
    yield encode_mp4(moving[:2], 24.0, VideoSettings(crf=51, pix_fmt="yuv420p"))
    yield encode_mp4(rng.integers(0, 256, (2, 16, 16, 3), np.uint8), 8.0, VideoSettings(crf=40))
    yield web_copy(moving[:3], 8.0)


_FORM = ConversionSettings(fps=8.0, frames=3, width=16, height=16)


def _outside(data: bytes) -> None:
    convert(io.BytesIO(data), _FORM)


TARGETS = (Target("mp4", decode_mp4, _clips, words=_BOXES, most=4096, least=10_000, share=12),
           Target("outside-video", _outside, _clips, words=_BOXES, most=4096, least=10_000, share=4))  # fmt: skip
