"""What a reward is to the rest of the loop: one object that carries everything, and references to rewards."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from data.keys import digest
from data.settings import Settings, setting
from data.text_limit import TextLimit
from rewards.base import Judgement, LoadedClip, Part, Reward, guarded

if TYPE_CHECKING:
    from data.store import Store

KIND: Final = "kind"
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")


class NetworkSettings(Settings):
    """Settings that every reward has that runs a network in the run's own process."""

    device: str | None = setting(
        None,
        "Device",
        "auto, cpu, cuda, cuda:1; null: the model's own (model.device).",
        cost_only=True,
        pattern=r"^(auto|cpu|cuda(:(\d+|all))?)$",
    )

    @property
    def in_process(self) -> bool:
        """Whether the network runs here, and not in a server."""
        return True


@dataclass(frozen=True)
class RewardRef:
    """A reward of a round: plain data that can be sent to another process and built there.

    Attributes:
        name: what the recipe calls it; in the recipe, summary.json and reports.
        version: digest of all that decides its values. Scores are kept under kind and version.
        settings: what it is built from.
        parts: what it combines, if anything.
        kind: name of its kind, the value of column `reward`; "": as `name`.
    """

    name: str
    version: str
    settings: Any
    parts: tuple[Part, ...] = ()
    kind: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", self.kind or self.name)


# A name of the recipe's -> the reward that it stands for.
Named = Callable[[str], RewardRef]


@dataclass(frozen=True)
class RewardKind:
    """One kind of reward. A module of package `rewards`, or an entry point, exports one, or a tuple of them.

    Only `build` may load weights; it and `whole` may load libraries, everything else reads files at most.

    Attributes:
        name: in recipes, and the value of column `reward`.
        settings: its model. Of `NetworkSettings`, the reward is loaded once a process, and its threads take
            turns.
        build: the reward, ready to score, from settings.
        version: of the scores that these settings give, 16 hex digits.
        range: smallest and largest value; either may be infinite.
        reads: what of a clip it looks at, in a few words.
        serves: it starts a server of the run's own; one such server runs at a time.
        parts: what it combines: parts are scored, and kept, for themselves.
        combine: makes a clip's judgement (settings, category, judgements by part) out of its parts'.
        permitted: raises ConfigError if settings ask for what this machine's operator lets no recipe do.
        ready: raises UserError if this machine lacks something that scoring takes.
        whole: raises ModelError if weights that are on this machine do not fill the network that scores. It
            reads headers of weights, and no tensor.
        held: of a reward whose values lie in the store: settings and which of what the store holds they speak
            of, as one object, which all of the above take in place of the settings, but `threshold`. It is
            asked of clips as they are stored, whatever frames it is shown.
        bind: of a mixture: settings that name other rewards, and these rewards, as one object, which all of
            the above take in place of the settings.
        threshold: value from which a clip passes, if settings know one.
        text_limit: what its text encoder reads of a prompt, where what is longer is cut; its answer is None
            where the tokenizer is not on this machine.
        is_probability: whether values are probabilities that a clip is good, so that they can be calibrated.
        network: of a reward that was built, how its network computes, see `data.networks.network_line`; its
            answer is None where that is loaded, or reached, at the first clip.
        within: as a guard: lowest and highest ratio after / before that a candidate may have; None: it may
            rise.
    """

    name: str
    settings: type[Settings]
    build: Callable[[Any], Reward]
    version: Callable[[Any], str]
    range: tuple[float, float]
    reads: str
    serves: Callable[[Any], bool] = lambda settings: False
    parts: Callable[[Any], tuple[Part, ...]] = lambda settings: ()
    combine: Callable[[Any, str, Mapping[str, Judgement]], Judgement] | None = None
    permitted: Callable[[Any], None] = lambda settings: None
    ready: Callable[[Any], None] = lambda settings: None
    whole: Callable[[Any], None] = lambda settings: None
    held: Callable[[Any, Store], Any] | None = None
    bind: Callable[[Any, Named], Any] | None = None
    threshold: Callable[[Any], float | None] = lambda settings: None
    text_limit: Callable[[Any], TextLimit | None] | None = None
    is_probability: Callable[[Any], bool] = lambda settings: False
    network: Callable[[Any], str | None] | None = None
    within: tuple[float, float | None] = (0.8, None)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise TypeError(f"{self.name!r} is no name of a reward: use small letters, digits and _")
        low, high = self.within
        if not 0 <= low <= 1 or (high is not None and not high >= 1):
            raise TypeError(f"reward {self.name}: within {self.within} does not hold the ratio 1")
        if KIND in self.settings.model_fields:
            raise TypeError(f"reward {self.name}: no setting may be called {KIND!r}")

    def device(self, settings: Any) -> str:
        """Where its network computes; "cpu" if it runs none in this process."""
        networks = isinstance(settings, NetworkSettings) and settings.in_process
        return (settings.device or "auto") if networks else "cpu"

    def network_told(self, reward: Reward, settings: Any) -> str | None:
        """How the network of a reward that was built computes; None if it runs none, or none yet."""
        if self.network is not None:
            return self.network(reward)
        here = isinstance(settings, NetworkSettings) and settings.in_process
        return f"not told by rewards of kind {self.name}" if here else None


def version_of(name: str, code: int, settings: Settings, content: object = None, *of: str) -> str:
    """A reward's version: 16 hex digits.

    Args:
        name: of the kind.
        code: a number that its author raises when the same settings come to give other values.
        settings: those at their default, and those that only change the cost, are left out.
        content: what stands in place of files: digests of weights, texts.
        of: names of the settings that only say where that content is.
    """
    said = {key: value for key, value in settings.fingerprint().items() if key not in of}
    return digest([name, code, said, content])[:16]


@dataclass(frozen=True)
class _PerClip:
    name: str
    range: tuple[float, float]
    version: str
    judge: Callable[[LoadedClip, Any], Judgement]
    settings: Settings

    @guarded
    def score(self, clips: Sequence[LoadedClip]) -> list[Judgement]:
        return [self.judge(clip, self.settings) for clip in clips]


def per_clip(
    name: str,
    settings: type[Settings],
    judge: Callable[[LoadedClip, Any], Judgement],
    *,
    code: int,
    range: tuple[float, float],
    reads: str,
    **more: Any,
) -> RewardKind:
    """The kind of a reward that is a function of one clip and the settings, and loads nothing.

    Args:
        name, settings, range, reads, more: as of `RewardKind`.
        judge: the function; it raises CannotJudge for a clip that has no value.
        code: as of `version_of`.
    """

    def version(asked: Settings) -> str:
        return version_of(name, code, asked)

    def build(asked: Settings) -> Reward:
        return _PerClip(name, range, version(asked), judge, asked)

    return RewardKind(name, settings, build, version, range, reads, **more)
