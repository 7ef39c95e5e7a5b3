"""A video file of somebody else's to frames of the form that is asked for, or the reason why not.

What it is its content decides, not its name. It is read through one open file: no format and no codec is
tried that could name another. Pictures are scaled as they come, so that memory holds what is made of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, BinaryIO, Final

import numpy as np

from data.errors import VideoError
from data.mp4_header import claimed, header
from data.outside.picture import Picture, Pictures
from data.outside.resample import Shown, at_rate
from data.outside.settings import ConversionSettings
from data.video import LARGEST_CLIP, LARGEST_PICTURE, Frames, of_the_machine, within_memory

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream

# Decoders of FFmpeg, and what their codecs are called.
_CODECS: Final = {"h264": "h264", "hevc": "hevc", "vp8": "vp8", "vp9": "vp9", "libdav1d": "av1", "av1": "av1"}
_MOV: Final = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_MATROSKA: Final = b"\x1aE\xdf\xa3"
# What is decoded of a file to find the frames that are wanted: pictures, and pixels of all of them.
_MOST_FRAMES: Final = 200_000
_MOST_PIXELS: Final = 1 << 37


@dataclass(frozen=True)
class Facts:
    """What a file says it is; null: it does not say."""

    container: str | None = None
    codec: str | None = None
    pix_fmt: str | None = None
    width: int | None = None
    height: int | None = None
    rotation: int | None = None
    frames: int | None = None
    fps: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Converted:
    """A file brought to the form that was asked for.

    Attributes:
        frames: uint8 RGB [T, H, W, 3]; `fps`: frames per second.
        facts: of the file.
        done: what was done to it, in words.
    """

    frames: Frames
    fps: float
    facts: Facts
    done: tuple[str, ...]


class Refused(VideoError):
    """A file that cannot be decoded, or not be brought to the form that was asked for; says why.

    Attributes:
        facts: what is known of it.
    """

    def __init__(self, reason: str, facts: Facts) -> None:
        super().__init__(reason)
        self.facts = facts

    def __reduce__(self) -> tuple[type[Refused], tuple[str, Facts]]:
        return type(self), (str(self), self.facts)


def convert(file: BinaryIO, settings: ConversionSettings) -> Converted:
    """The frames of a file: mp4, mov, webm or mkv with H.264, H.265, VP8, VP9 or AV1.

    Sound and further streams are left out, edit lists and display matrices are followed, frames are chosen
    by their time stamps. A file that breaks off counts up to there.

    Args:
        file: open for reading, and for nothing else meanwhile.
        settings: the form.

    Raises:
        Refused: why it is not taken.
        OSError: memory, open files or threads ran out, which says nothing of the video.
    """
    import av

    reading = _Reading(settings)
    try:
        return within_memory(lambda: reading.read(file), lambda: file.seek(0, 2))
    except (av.FFmpegError, OSError, ValueError) as error:
        if of_the_machine(error):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise Refused(reason, reading.facts) from error


@dataclass
class _Reading:
    settings: ConversionSettings
    facts: Facts = field(default_factory=Facts)

    def read(self, file: BinaryIO) -> Converted:
        import av

        file.seek(0)
        name = _container(file)
        self.facts = Facts(name)
        # Without "explode" the decoder hides broken pictures behind copies of their neighbours.
        options = {"err_detect": "explode", "codec_whitelist": ",".join(_CODECS), "max_streams": "64"}
        with av.open(file, "r", format=name, options=options, metadata_errors="replace") as container:
            stream = _stream(container)
            self._look(container, stream)
            return self._frames(container, stream)

    def _look(self, container: InputContainer, stream: VideoStream) -> None:
        """Note what the header says, and refuse what it says would cost too much."""
        codec = stream.codec_context
        decoder = getattr(codec, "name", None)  # None: a codec that FFmpeg lacks
        rate = stream.average_rate or stream.guessed_rate
        lasts = stream.duration * stream.time_base if stream.duration and stream.time_base else None
        if lasts is None and container.duration:
            lasts = Fraction(container.duration, 1_000_000)
        self.facts = replace(
            self.facts,
            codec=_CODECS.get(decoder or "", decoder),
            pix_fmt=codec.pix_fmt if decoder else None,
            width=(codec.width or None) if decoder else None,
            height=(codec.height or None) if decoder else None,
            frames=stream.frames or None,
            fps=float(rate) if rate else None,
            seconds=float(lasts) if lasts else None,
        )
        if decoder not in _CODECS:
            known = ", ".join(dict.fromkeys(_CODECS.values()))
            raise ValueError(f"its pictures are {decoder or 'of a codec that is not known'}, not {known}")
        if not rate:
            raise ValueError("its frame rate is unknown")
        if codec.width * codec.height > LARGEST_PICTURE:
            raise ValueError(f"its pictures are {codec.width}x{codec.height}, which is more than can be read")

    def _frames(self, container: InputContainer, stream: VideoStream) -> Converted:
        asked = self.settings
        assert self.facts.fps is not None
        rate, fps = self.facts.fps, asked.fps or self.facts.fps
        if not 0 < fps < 1000:
            raise ValueError(f"it has {fps:g} frames a second: say how many are meant")
        codec = stream.codec_context
        codec.options = {"max_pixels": str(LARGEST_PICTURE)}
        codec.thread_count = 1  # files are read side by side
        pixels = Pictures(asked, Fraction(stream.sample_aspect_ratio or 1))
        decoded = _Decoded(container, stream)
        made: list[Picture] = []
        repeated = 0
        wanted = asked.frames or _MOST_FRAMES
        for frame, again in at_rate(decoded.shown(), fps, rate, wanted):
            made.append(made[-1] if again else pixels(frame))
            repeated += again
            wide, high = pixels.size
            if wide * high * len(made) > LARGEST_CLIP:
                raise ValueError(f"{len(made)} frames of {wide}x{high} and more are more than can be read")
            if repeated > asked.repeats * (asked.frames or _MOST_FRAMES):
                raise ValueError(self._slow(repeated, asked.frames or len(made), fps))
        self.facts = replace(self.facts, rotation=pixels.rotation)
        if not made:
            raise ValueError(decoded.broken or "it holds no pictures")
        if asked.frames is None and len(made) == _MOST_FRAMES:
            raise ValueError(f"it has more than {_MOST_FRAMES} frames: say how many are meant")
        lacking = asked.frames - len(made) if asked.frames else 0
        total = len(made) + lacking
        if repeated > asked.repeats * total:
            raise ValueError(self._slow(repeated, total, fps))
        if repeated + lacking > asked.repeats * total:
            end = f" ({decoded.told})" if decoded.told else ""
            raise ValueError(f"it has {len(made)} of {total} frames at {fps:g} a second{end}")
        made += made[-1:] * lacking
        done = tuple(self._done(pixels, decoded, fps, repeated + lacking, stream))
        return Converted(np.stack(made), fps, self.facts, done)

    def _slow(self, repeated: int, total: int, fps: float) -> str:
        return (
            f"at {fps:g} frames a second {repeated} of {total} or more would be the one before again; it has "
            f"{self.facts.fps:.4g} a second"
        )

    def _done(
        self, pixels: Pictures, decoded: _Decoded, fps: float, repeated: int, stream: VideoStream
    ) -> Iterator[str]:
        rate = self.facts.fps or fps
        if abs(fps - rate) > 1e-3 * fps:
            yield f"{rate:.4g} frames a second made {fps:g}"
        elif decoded.uneven:
            yield f"uneven time stamps made {fps:g} frames a second"
        lasts, made = self.facts.seconds, self.settings.frames
        if made and not decoded.whole and (lasts is None or lasts * fps > made + 0.5):
            yield f"cut to its first {made / fps:.4g} s"
        if decoded.told:
            yield decoded.told
        if repeated:
            yield f"{repeated} frame{'s' if repeated > 1 else ''} repeated"
        yield from pixels.done
        if stream.metadata.get("alpha_mode", stream.metadata.get("ALPHA_MODE")) == "1":
            yield "alpha left out"
        if stream.container.streams.audio:
            yield "sound left out"


class _Decoded:
    """The pictures of a stream as they are decoded.

    Attributes:
        broken: what ended them before their end; "" for nothing.
        whole: whether they were read to their end.
        uneven: whether they do not follow at a steady rate.
    """

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._container, self._stream = container, stream
        self._count = 0
        self.broken = ""
        self.whole = False
        self.uneven = False

    @property
    def told(self) -> str:
        """That frames are missing, in words; "" where none is."""
        promised = self._stream.frames
        of = f" of {promised}" if promised else ""
        if self.broken:
            return f"only the first {self._count}{of} frames can be decoded"
        # Cut off, or left out by an edit list.
        return f"it shows {self._count}{of} frames" if self.whole and self._count < promised else ""

    def shown(self) -> Iterator[Shown[av.VideoFrame]]:
        """The pictures with their times. Raises ValueError: they are more than are looked through."""
        import av

        rate = self._stream.average_rate or self._stream.guessed_rate
        usual = float(1 / rate) if rate else 0.0
        before: float | None = None
        frames = self._container.decode(self._stream)
        while True:
            try:
                frame = next(frames, None)
            except av.FFmpegError as error:
                if of_the_machine(error):
                    raise
                self.broken = error.strerror or str(error)
                break
            if frame is None:
                break
            if frame.is_corrupt:
                self.broken = "a picture is damaged"
                break
            if frame.pts is None or frame.time_base is None:
                raise ValueError("its pictures have no time stamps")
            self._count += 1
            size = frame.width * frame.height
            if size > LARGEST_PICTURE or self._count > _MOST_FRAMES or self._count * size > _MOST_PIXELS:
                raise ValueError(
                    f"{self._count} frames of {frame.width}x{frame.height} are more than are looked through"
                )
            if before is not None and abs(frame.time - before - usual) > 0.25 * usual:
                self.uneven = True
            before = frame.time
            yield Shown(frame.time, float((frame.duration or 0) * frame.time_base) or usual, frame)
        self.whole = True


def _container(file: BinaryIO) -> str:
    """FFmpeg's name of the format, by how the file begins. Raises ValueError: it is none of ours."""
    begin = file.read(12)
    file.seek(0)
    if begin[:4] == _MATROSKA:
        return "matroska"
    if begin[4:8] not in _MOV:
        raise ValueError("its content is neither mp4 or mov nor webm or mkv")
    size = file.seek(0, 2)
    file.seek(0)
    if claimed(header(file)) > size:
        raise ValueError("its header counts more than the file has bytes")
    file.seek(0)
    return "mov"


def _stream(container: InputContainer) -> VideoStream:
    from av.stream import Disposition

    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    raise ValueError("it holds no video stream")
