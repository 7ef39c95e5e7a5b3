"""The Reward protocol, and the guard that keeps every failure from becoming a number.

A judgement has a value inside the reward's documented range, or no value and a reason. NaN, infinity and a
value out of range are reasons, never values: a failed judgement that turns into 0.0 is learned from. Nor is
a fault of the machine a reason: it says nothing of the clip, so there is no judgement and the unit fails.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from data.errors import UserError, VideoError

# Rounding may carry a cosine of one a little past one; further out it is a defect and is reported as such.
_ROUNDING = 1e-5


@dataclass(frozen=True, eq=False)
class LoadedClip:
    """A clip as all rewards see it: decoded once from the stored file.

    Attributes:
        clip_id: id of the row.
        prompt: the text it was generated from.
        frames: uint8 [T, H, W, 3], RGB.
        fps: frames per second, or None when the file does not say.
        category: of the prompt; "" if it has none.
    """

    clip_id: str
    prompt: str
    frames: NDArray[np.uint8]
    fps: float | None
    category: str = ""


@dataclass(frozen=True)
class Judgement:
    """What a reward says of a clip: a value, or None and why not.

    Attributes:
        value: inside the reward's range, or None.
        detail: what the reward saw and how it came to the value; plain JSON values only.
        error: None exactly when there is a value.
        again: without a value: whether asking again may help (a server that did not answer), or the clip
            itself is the reason.
    """

    value: float | None
    detail: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    again: bool = False

    def __post_init__(self) -> None:
        if (self.value is None) == (self.error is None):
            raise ValueError("a judgement has either a value or an error")
        if self.again and self.error is None:
            raise ValueError("a judgement with a value needs no second one")


class CannotJudge(Exception):
    """This clip can have no value, now or later, and the message says why: no frame rate, too few frames."""


class Reward(Protocol):
    """A judge of clips. Implementations decorate `score` with `guarded`."""

    @property
    def name(self) -> str:
        """Name of its kind, and the value of column `reward`."""
        ...

    @property
    def version(self) -> str:
        """Digest of weights, settings that matter, and the code's own number."""
        ...

    @property
    def range(self) -> tuple[float, float]:
        """Smallest and largest value it can give; either may be infinite."""
        ...

    def score(self, clips: Sequence[LoadedClip]) -> list[Judgement]:
        """One judgement for each clip, in the same order."""
        ...


AnyReward = TypeVar("AnyReward", bound=Reward)


@dataclass(frozen=True)
class Part:
    """A part of a reward that is scored, and kept, for itself: one question of a judge.

    Attributes:
        name: among the parts of its reward, for example "judge/physics".
        version: digest of all that decides this part's values, and of no other part.
        categories: categories of the clips that have this part; empty: all.
        kind: value of column `reward`; "": as `name`.
    """

    name: str
    version: str
    categories: tuple[str, ...] = ()
    kind: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", self.kind or self.name)

    def applies(self, category: str) -> bool:
        """Whether clips of this category have this part."""
        return not self.categories or category in self.categories


@dataclass(frozen=True)
class PartScores:
    """What a reward of parts said: judgements by part's name and clip id.

    Attributes:
        down: why the judge answers nobody any more, or None. Then judgements may be missing.
    """

    judgements: dict[str, dict[str, Judgement]]
    down: str | None = None


def failed(error: str, detail: dict[str, Any] | None = None, again: bool = False) -> Judgement:
    """A judgement without a value, for the reason given."""
    return Judgement(None, detail or {}, error, again)


def guarded(
    score: Callable[[AnyReward, Sequence[LoadedClip]], list[Judgement]],
) -> Callable[[AnyReward, Sequence[LoadedClip]], list[Judgement]]:
    """Decorator of `Reward.score`: what a reward says of one clip is that clip's and no other's.

    Clips that are no videos are not passed on. If a batch raises, its halves are tried, down to the clip
    that raises: this isolates one bad clip, and gets a batch that is too large for the device's memory
    through in smaller ones. A clip fails by CannotJudge, by VideoError, and by a value that is not finite or
    not in `range`; non-finite numbers in details become null.

    Raises:
        UserError: passed on, because the settings are wrong and not the clip.
        Exception: any other that a clip alone still raises. Memory that ran out, a driver that failed, too
            many open files or a defect say nothing of the clip: kept as its failure they would be believed
            for ever.
    """

    @functools.wraps(score)
    def guard(reward: AnyReward, clips: Sequence[LoadedClip]) -> list[Judgement]:
        problems = [not_a_video(clip) for clip in clips]
        good = [clip for clip, problem in zip(clips, problems, strict=True) if problem is None]
        judged = iter(_halving(reward, good))
        return [
            checked(next(judged), reward.range) if problem is None else failed(problem)
            for problem in problems
        ]

    def _halving(reward: AnyReward, clips: Sequence[LoadedClip]) -> list[Judgement]:
        if not clips:
            return []
        try:
            judgements = score(reward, clips)
        except UserError:
            raise
        except Exception as error:
            if len(clips) > 1:
                middle = len(clips) // 2
                # Recurse outside the handler: inside, the traceback keeps the failed batch's tensors alive.
                parts = (clips[:middle], clips[middle:])
            elif isinstance(error, CannotJudge | VideoError):
                return [failed(str(error))]
            else:
                raise
        else:
            if len(judgements) != len(clips):
                raise AssertionError(f"{reward.name} gave {len(judgements)} judgements of {len(clips)} clips")
            return judgements
        return [judgement for part in parts for judgement in _halving(reward, part)]

    return guard


PromptAnswers = Mapping[str, Mapping[str, Judgement]]
"""What a reward says of prompts by their text alone: judgements by the prompt's text and a part's name."""


class PartedReward(ABC):
    """A reward whose value combines parts, each of which is asked for alone; several threads share it."""

    name: str
    range: tuple[float, float]
    version: str
    parts: tuple[Part, ...]
    prompt_version: str = ""
    """Digest of what it asks of prompts by their text alone, before anything of clips; "": nothing."""

    @guarded
    def score(self, clips: Sequence[LoadedClip]) -> list[Judgement]:
        """Every part that applies, combined."""
        wanted = {part.name: [clip for clip in clips if part.applies(clip.category)] for part in self.parts}
        scored = self.score_parts(wanted).judgements
        return [
            self.combined(
                clip.category,
                {name: found[clip.clip_id] for name, found in scored.items() if clip.clip_id in found},
            )
            for clip in clips
        ]

    @abstractmethod
    def score_parts(self, wanted: Mapping[str, Sequence[LoadedClip]]) -> PartScores:
        """Judgements of the clips that each part (by name) is wanted of."""

    def ask_prompts(self, clips: Sequence[LoadedClip]) -> PromptAnswers:
        """What it says of the prompts of these clips by their text alone; answered before or now.

        Prompts that need not be asked about are left out.
        """
        return {}

    def recall(self, answers: PromptAnswers) -> None:
        """Take these for its own answers about prompts, so that nobody asks again."""
        assert not answers, f"{self.name} asks nothing of prompts"

    @abstractmethod
    def combined(self, category: str, parts: Mapping[str, Judgement]) -> Judgement:
        """A clip's judgement from those of its parts, by name."""

    @abstractmethod
    def close(self) -> None:
        """End whatever was started; may be called twice."""


def frame_indices(frames: int, wanted: int) -> list[int]:
    """`wanted` frame numbers spread evenly over `frames`, first and last included; all if there are fewer."""
    if wanted >= frames:
        return list(range(frames))
    if wanted == 1:
        return [frames // 2]
    return [round(i * (frames - 1) / (wanted - 1)) for i in range(wanted)]


def pair_starts(frames: int, stride: int, wanted: int) -> list[int]:
    """First frames of at most `wanted` pairs (t, t + stride): the middles of equal parts of the clip.

    Middles, because a clip's first and last moments are its stillest. No pair comes twice; empty if the
    clip has none.
    """
    possible = max(0, frames - stride)
    count = min(wanted, possible)
    return [int((i + 0.5) * possible / count) for i in range(count)]


def known_fps(clip: LoadedClip) -> float:
    """The clip's frame rate. Raises CannotJudge if it is unknown: a speed without a clock is made up."""
    if clip.fps is None or not math.isfinite(clip.fps) or clip.fps <= 0:
        raise CannotJudge(
            f"the frame rate of the clip is unknown (fps = {clip.fps}), so no speed can be measured"
        )
    return clip.fps


def not_a_video(clip: LoadedClip) -> str | None:
    """Why the clip's frames are no video, or None."""
    frames = clip.frames
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        return (
            f"frames are {frames.dtype} {list(frames.shape)}, expected uint8 [T, H, W, 3] with T, H, W >= 1"
        )
    return None


def checked(judgement: Judgement, bounds: tuple[float, float]) -> Judgement:
    """The judgement, failed if its value is not finite or out of bounds; its detail as plain JSON."""
    low, high = bounds
    value, detail = judgement.value, _json_safe(judgement.detail)
    if value is None:
        return Judgement(None, detail, judgement.error, judgement.again)
    value = float(value)
    if not math.isfinite(value):
        return failed(f"the value is {value}, not a finite number", detail)
    if not low - _ROUNDING <= value <= high + _ROUNDING:
        return failed(f"the value {value} lies outside [{low}, {high}]", detail)
    return Judgement(min(max(value, low), high), detail)


def _json_safe(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _json_safe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_safe(item) for item in value]
    if isinstance(value, np.generic):
        return _json_safe(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
