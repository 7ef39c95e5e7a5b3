"""Videos as other tools leave them, made with FFmpeg's encoders and muxers, and files that are none."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
import numpy.typing as npt

Frames = npt.NDArray[np.uint8]
SOFT = {"crf": "1", "preset": "ultrafast"}


def moving(frames: int = 16, width: int = 96, height: int = 64) -> Frames:
    """A soft light that moves to the right over a slope of colours: up, down, left and right all differ."""
    x, y = np.arange(width)[None, None, :], np.arange(height)[None, :, None]
    t = np.arange(frames)[:, None, None]
    light = 120 * np.exp(-(((x - 8 - 4 * t) / 12) ** 2) - ((y - height / 3) / 12) ** 2)
    red, green = 40 + 80 * x / width + 0 * y + light, 40 + 90 * y / height + 0 * x + light
    return np.clip(np.stack([red, green, 60 + light + 0 * x], -1), 0, 255).astype(np.uint8)


def video(
    frames: Frames,
    fps: float = 8,
    codec: str = "libx264",
    container: str = "mp4",
    pix_fmt: str = "yuv420p",
    options: Mapping[str, str] = SOFT,
    *,
    times: Sequence[int] | None = None,
    sound: str = "",
    rotation: int = 0,
    aspect: Fraction | None = None,
    mux: Mapping[str, str] | None = None,
    metadata: Mapping[str, str] | None = None,
    about: Mapping[str, Any] | None = None,
) -> bytes:
    """A file of `frames`.

    Args:
        times: of the frames in milliseconds, where they do not follow at a steady rate.
        sound: codec of a sound track.
        mux: options of the container.
        about: attributes of the codec's context.
    """
    buffer = io.BytesIO()
    rate = Fraction(fps).limit_denominator(1001)
    with av.open(buffer, "w", format=container, options=dict(mux or {})) as out:
        stream = out.add_stream(codec, rate=rate, options=dict(options))
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], pix_fmt
        stream.codec_context.thread_count = 1
        stream.metadata.update(metadata or {})
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        if aspect is not None:
            stream.sample_aspect_ratio = aspect
        for name, value in (about or {}).items():
            setattr(stream.codec_context, name, value)
        heard = out.add_stream(sound, rate=48000) if sound else None
        for place, picture in enumerate(frames):
            one = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            if times is not None:
                one.pts, one.time_base = times[place], Fraction(1, 1000)
            out.mux(stream.encode(one))
        out.mux(stream.encode(None))
        if heard is not None:
            silence = np.zeros((1, 960 * 25), np.float32)
            block = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
            block.sample_rate, block.pts = 48000, 0
            resampler = av.AudioResampler(heard.codec_context.format or "fltp", "stereo", 48000, 960)
            for piece in resampler.resample(block):
                out.mux(heard.encode(piece))
            out.mux(heard.encode(None))
    return buffer.getvalue()


def with_edit(data: bytes, media_time: int, duration: int) -> bytes:
    """An mp4 whose first edit begins at `media_time` (units of the track) and lasts `duration` (of the movie)."""
    place = data.index(b"elst")
    assert struct.unpack_from(">I", data, place + 8) == (1,)
    assert data[place + 4] == 0
    changed = bytearray(data)
    struct.pack_into(">Ii", changed, place + 12, duration, media_time)
    return bytes(changed)


def only_sound() -> bytes:
    """An mp4 without pictures."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        heard = out.add_stream("aac", rate=48000)
        block = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        block.sample_rate = 48000
        out.mux(heard.encode(block))
        out.mux(heard.encode(None))
    return buffer.getvalue()


def in_709(frames: Frames) -> bytes:
    """A file whose colours are those of HD video, and say so."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=8, options=SOFT)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        stream.codec_context.colorspace = 1
        for picture in frames:
            one = av.VideoFrame.from_ndarray(picture, format="rgb24")
            out.mux(stream.encode(one.reformat(format="yuv420p", dst_colorspace="ITU709")))
        out.mux(stream.encode(None))
    return buffer.getvalue()


H265 = {"x265-params": "log-level=none", "crf": "1", "preset": "ultrafast"}
VP9 = {"crf": "4", "b": "0", "deadline": "realtime", "cpu-used": "8"}
HDR = H265 | {"x265-params": "log-level=none:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"}


def odd_files() -> dict[str, tuple[bytes, str, str]]:
    """Thirty-odd files by name: bytes; whether a set of 16 frames of 96x64 at 8 a second takes, converts or refuses
    them; and what it says of that. Names say nothing of the content.
    """
    plain, long = moving(), moving(48)
    whole, keyed = video(plain), video(plain, container="matroska", options={**SOFT, "g": "4"})
    broken = bytearray(keyed)
    broken[len(broken) // 2 : len(broken) // 2 + 200] = bytes(200)
    claims = bytearray(whole)
    struct.pack_into(">I", claims, whole.index(b"stsz") + 12, 1 << 31)
    turned = np.rot90(plain, -1, axes=(1, 2))
    fast = [round(1000 * k / 24) + (k * 7) % 13 for k in range(48)]
    return {
        "h264.mp4": (whole, "taken", ""),
        "named.txt": (whole + b"\0\0\0\x08free", "taken", ""),
        "h265.mov": (video(plain, codec="libx265", container="mov", options=H265), "taken", ""),
        "vp9.webm": (video(plain, codec="libvpx-vp9", container="webm", options=VP9), "taken", ""),
        "vp8.webm": (video(plain, codec="libvpx", container="webm", options={"crf": "4", "b": "4M"}), "taken", ""),
        "av1.mkv": (video(plain, codec="libsvtav1", container="matroska", options={"crf": "10", "preset": "12"}),
                    "taken", ""),
        "fragments.mp4": (video(plain, mux={"movflags": "frag_keyframe+empty_moov"}), "taken", ""),
        "hd-colours.mp4": (in_709(plain), "taken", ""),
        "full-range.mp4": (video(plain, pix_fmt="yuvj420p"), "taken", ""),
        "ten-bit.mkv": (video(plain, codec="libx265", container="matroska", pix_fmt="yuv420p10le", options=H265),
                        "converted", "10 bits made 8"),
        "alpha.webm": (video(plain, codec="libvpx-vp9", container="webm", pix_fmt="yuva420p",
                             options=VP9 | {"auto-alt-ref": "0"}, metadata={"alpha_mode": "1"}),
                       "converted", "alpha left out"),
        "sound.mp4": (video(plain, sound="aac"), "converted", "sound left out"),
        "turned.mp4": (video(turned, rotation=90), "converted", "turned by 90 degrees"),
        "cinema.mp4": (video(long, fps=24), "converted", "24 frames a second made 8"),
        "ntsc.mp4": (video(moving(64), fps=29.97), "converted", "29.97 frames a second made 8"),
        "uneven.mkv": (video(long, fps=24, container="matroska", times=fast), "converted", "made 8"),
        "long.mp4": (video(moving(40)), "converted", "cut to its first 2 s"),
        "one-short.mp4": (video(moving(15)), "converted", "1 frame repeated"),
        "edited.mp4": (with_edit(video(moving(24), options={**SOFT, "bf": "0"}), 4 * 2048, 2000), "converted",
                       "it shows 16 of 24 frames"),
        "larger.mp4": (video(moving(16, 192, 128)), "converted", "scaled from 192x128 to 96x64"),
        "wide.mp4": (video(moving(16, 128, 64)), "converted", "cut from 128x64 to 96x64"),
        "odd.mp4": (video(moving(16, 97, 65), pix_fmt="yuv444p"), "converted", "scaled and cut from 97x65"),
        "oblong.mp4": (video(moving(16, 72, 64), aspect=Fraction(4, 3)), "converted", "pixels made square"),
        "last-gone.mkv": (keyed[: int(len(keyed) * 0.95)], "converted", "1 frame repeated"),
        "half.mkv": (keyed[: len(keyed) // 2], "refused", "it has 7 of 16 frames at 8 a second"),
        "damaged.mkv": (bytes(broken), "refused", "only the first 7 frames can be decoded"),
        "no-header.mp4": (whole[: len(whole) // 2], "refused", "Invalid data found when processing input"),
        "claims.mp4": (bytes(claims), "refused", "counts more than the file has bytes"),
        "few.mp4": (video(moving(8), fps=4), "refused", "would be the one before again"),
        "short.mp4": (video(moving(8)), "refused", "it has 8 of 16 frames"),
        "tilted.mp4": (video(plain, rotation=30), "refused", "not by quarters"),
        "hdr.mp4": (video(plain, codec="libx265", pix_fmt="yuv420p10le", options=HDR), "refused", "range is high (PQ)"),
        "fields.mp4": (video(plain, options={**SOFT, "x264-params": "interlaced=1"}), "refused", "interlaced"),
        "mpeg4.mp4": (video(plain, codec="mpeg4", options={}), "refused", "its pictures are mpeg4, not h264"),
        "prores.mov": (video(plain, codec="prores_ks", container="mov", pix_fmt="yuv422p10le", options={}),
                       "refused", "its pictures are prores"),
        "huge.mp4": (video(np.zeros((1, 8, 8, 3), np.uint8).repeat(300, 1).repeat(1024, 2), 8),
                     "refused", "8192x2400, which is more than can be read"),
        "sound-only.mp4": (only_sound(), "refused", "no video stream"),
        "text.mp4": (b"no video at all, but a text\n", "refused", "neither mp4 or mov nor webm or mkv"),
        "empty.mp4": (b"", "refused", "it is empty"),
    }  # fmt: skip
