"""Video files: near-lossless mp4 masters, which are scored, and copies for browsers, which never are.

Encoding is a function of the frames and the settings: one thread, no clock, no sums that depend on the
processor. Scores depend on compression, so a reward sees what `decode_mp4` gives back, never the tensor in
memory.
"""

from __future__ import annotations

import errno
import io
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from data.errors import DataError, VideoError
from data.mp4_header import claimed
from data.settings import Settings, setting

if TYPE_CHECKING:
    from av.container import OutputContainer

Frames = npt.NDArray[np.uint8]
Read = TypeVar("Read")

# Part of a clip's identity. x264 distributes bits by floating-point sums (mbtree). Their fast versions gave
# the same frames different bytes from call to call on an AMD EPYC while several threads encoded: 330 of 480
# files. Its exact versions cost nothing that can be measured.
ENCODER: Final = "x264 cpu-independent"
_EXACT: Final = {"x264-params": "cpu-independent=1"}
_CODEC: Final = "h264"
# Pixels: of a picture, 4096 x 4096; of all of a clip, 690 frames of 1920 x 1080, which are 4 GiB.
LARGEST_PICTURE: Final = 1 << 24
LARGEST_CLIP: Final = (4 << 30) // 3
# More than FFmpeg needs for 33 pictures of that size: what a decoder may keep, on sixteen threads.
_ENOUGH: Final = 1 << 30
# What a decoder says where memory, open files or threads ran out: of the machine, whatever the file holds.
_OF_THE_MACHINE: Final = (errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN)


class VideoSettings(Settings):
    """How masters are written. Rewards see the decoded file, so this is part of a clip's identity."""

    codec: Literal["libx264"] = setting("libx264", "Codec", "H.264 by x264, one thread.")
    crf: int = setting(
        4,
        "CRF",
        "Constant rate factor; 0 is lossless but for the conversion of colours, below 10 near-lossless.",
        ge=0,
        le=51,
    )
    pix_fmt: Literal["yuv444p", "yuv420p"] = setting(
        "yuv444p", "Pixel format", "yuv444p keeps the colour of every pixel; yuv420p needs even sizes."
    )
    preset: Literal[
        "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"
    ] = setting("veryfast", "Preset", "x264's trade of time for size.")

    def describe(self) -> str:
        """The settings in a word, for the `codec` column."""
        return f"{self.codec} crf={self.crf} {self.pix_fmt} {self.preset}"


def encode_mp4(frames: Frames, fps: float, settings: VideoSettings | None = None) -> bytes:
    """Frames as an mp4 file; the same frames and settings give the same bytes.

    Args:
        frames: uint8 RGB [T, H, W, 3], T >= 1.
        fps: frames per second, > 0.
        settings: codec settings; None takes the defaults.

    Raises:
        ValueError: `frames` is not of that shape and type, or `fps` is not positive.
        DataError: yuv420p with an odd width or height.
    """
    chosen = settings or VideoSettings()
    _check_frames(frames, fps)
    if chosen.pix_fmt == "yuv420p" and (frames.shape[1] % 2 or frames.shape[2] % 2):
        raise DataError(
            f"video.pix_fmt yuv420p needs an even width and height, a clip is {frames.shape[2]}x"
            f"{frames.shape[1]}: use yuv444p"
        )
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        options = {"crf": str(chosen.crf), "preset": chosen.preset}
        _encode(container, frames, fps, chosen.pix_fmt, options)
    return buffer.getvalue()


def decode_mp4(source: str | Path | bytes) -> tuple[Frames, float]:
    """Every frame of a video.

    Args:
        source: a path of an mp4 file, or its bytes: H.264, pictures of 4096 x 4096 at most.

    Returns:
        (frames uint8 RGB [T, H, W, 3] with T >= 1, frames per second).

    Raises:
        VideoError: the file is missing, empty, not a video, truncated or corrupt.
        OSError: memory, open files or threads ran out, which says nothing of the video.
    """
    import av

    name = f"a video of {len(source)} bytes" if isinstance(source, bytes) else str(source)
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        if claimed(data) > len(data):
            raise ValueError("its header counts more than the file has bytes")
        pictures, promised, rate = within_memory(lambda: _pictures(data), lambda: len(data))
    except (av.FFmpegError, OSError, ValueError) as error:
        if of_the_machine(error):
            raise
        reason = getattr(error, "strerror", None) or error
        raise VideoError(f"{name} cannot be decoded: {reason}") from error
    if not pictures:
        raise VideoError(f"{name} cannot be decoded: it holds no frames")
    if promised and len(pictures) != promised:
        raise VideoError(f"{name} is truncated: {len(pictures)} of {promised} frames could be decoded")
    if any(picture.shape != pictures[0].shape for picture in pictures):
        raise VideoError(f"{name} cannot be decoded: its frames differ in size")
    return np.stack(pictures), float(rate)


def of_the_machine(error: BaseException) -> bool:
    """Whether memory, open files or threads ran out: a fact about the machine, whatever the file holds."""
    return getattr(error, "errno", None) in _OF_THE_MACHINE


def within_memory(read: Callable[[], Read], size: Callable[[], int]) -> Read:
    """What `read` gives; ValueError too where FFmpeg finds no memory, twice, for what a file claims.

    That is so if as much as FFmpeg can need for pictures of the largest size is to be had: else it is the
    machine that has no memory, and the error says so.

    Args:
        size: of the file, in bytes.
    """
    from av.error import MemoryError as NoMemory

    try:
        return read()
    except NoMemory:
        np.empty(_ENOUGH + 2 * size(), np.uint8)  # set aside, and given back untouched
    try:
        return read()
    except NoMemory:
        raise ValueError("its header claims more memory than a file of its size can need") from None


def _pictures(data: bytes) -> tuple[list[Frames], int, Fraction]:
    """The pictures of a video, how many it promises (0: it does not say), and its frame rate.

    Raises ValueError: it is not what `encode_mp4` and cameras write, or larger than a clip may be.
    """
    import av
    from av.video.reformatter import VideoReformatter

    # Without "explode" the decoder hides broken pictures behind copies of their neighbours. No other format
    # or codec is tried: FFmpeg has hundreds, and some of them name further files.
    options = {"err_detect": "explode", "codec_whitelist": _CODEC, "max_streams": "16"}
    with av.open(io.BytesIO(data), "r", format="mp4", options=options) as container:
        if not container.streams.video:
            raise ValueError("it holds no video stream")
        stream = container.streams.video[0]
        codec = stream.codec_context
        rate = stream.average_rate or stream.guessed_rate
        if not rate:
            raise ValueError("its frame rate is unknown")
        if getattr(codec, "name", None) != _CODEC:  # None: a codec that FFmpeg lacks
            raise ValueError(f"its pictures are not {_CODEC}")
        codec.options = {"max_pixels": str(LARGEST_PICTURE)}
        _check_size(codec.width, codec.height, stream.frames)
        # One converter for all: to set one up costs more than to convert a small frame.
        convert = VideoReformatter().reformat
        pictures: list[Frames] = []
        for frame in container.decode(stream):
            _check_size(frame.width, frame.height, len(pictures) + 1)
            pictures.append(np.asarray(convert(frame, format="rgb24").to_ndarray(), np.uint8))
        return pictures, stream.frames, rate


def _check_size(width: int, height: int, frames: int) -> None:
    if width * height > LARGEST_PICTURE or width * height * frames > LARGEST_CLIP:
        raise ValueError(f"{frames} frames of {width}x{height} are more than can be read")


def web_copy(frames: Frames, fps: float, scale: int = 1) -> bytes:
    """A copy to look at: H.264 High, yuv420p, index in front, pixels repeated `scale` times each way.

    An odd width or height is made even by repeating the last column or row. Raises ValueError: as
    `encode_mp4`, or `scale` < 1.
    """
    _check_frames(frames, fps)
    if scale < 1:
        raise ValueError(f"scale is {scale}, must be at least 1")
    import av

    large = frames.repeat(scale, axis=1).repeat(scale, axis=2)
    even = np.pad(large, ((0, 0), (0, large.shape[1] % 2), (0, large.shape[2] % 2), (0, 0)), mode="edge")
    # FFmpeg moves the index to the front by opening the finished file again, which needs a real file.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "copy.mp4"
        with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            options = {"crf": "14", "preset": "veryfast", "profile": "high"}
            _encode(container, even, fps, "yuv420p", options)
        return path.read_bytes()


def _encode(
    container: OutputContainer, frames: Frames, fps: float, pix_fmt: str, options: dict[str, str]
) -> None:
    import av

    rate = Fraction(fps).limit_denominator(1001)
    stream = container.add_stream("libx264", rate=rate, options={**options, **_EXACT})
    stream.height, stream.width = frames.shape[1], frames.shape[2]
    stream.pix_fmt = pix_fmt
    stream.codec_context.thread_count = 1
    for picture in frames:
        container.mux(
            stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24"))
        )
    container.mux(stream.encode(None))


def _check_frames(frames: Frames, fps: float) -> None:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
        raise ValueError(f"frames must be uint8 [T, H, W, 3] with T >= 1, not {frames.dtype} {frames.shape}")
    if not 0 < fps < 1000:
        raise ValueError(f"fps is {fps}, must be above 0 and below 1000")
