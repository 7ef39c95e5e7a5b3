"""Rewards by name: their settings, their versions, and how to build them. Nothing here loads a network."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from data.errors import ConfigError
from miniature.physics import PhysicsReward, PhysicsSettings, physics_version
from rewards.base import Judgement, Part, PartedReward, Reward
from rewards.clip import ClipReward, ClipSettings, clip_version
from rewards.composite import CompositeReward, CompositeSettings, combine, composite_parts, composite_version
from rewards.flow import FlowReward, FlowSettings, flow_version
from rewards.guards import (
    FlickerGuard,
    FlickerSettings,
    MotionGuard,
    MotionSettings,
    SharpnessGuard,
    SharpnessSettings,
    guard_version,
)
from rewards.judge.judge import JudgeReward, combine_parts
from rewards.judge.server import require_server
from rewards.judge.settings import JudgeSettings, judge_parts, judge_version
from rewards.preference import (
    Hpsv2Reward,
    Hpsv2Settings,
    PickScoreReward,
    PickScoreSettings,
    hpsv2_version,
    pickscore_version,
)
from rewards.videoscore import VideoScoreReward, VideoScoreSettings, videoscore_version


@dataclass(frozen=True)
class RewardKind:
    """What a name stands for: the dataclass of its settings, how to build it, how to tell its version.

    `build` may load weights and libraries; the others read files at most. A reward of parts names them, and
    makes a clip's judgement (settings, category, judgements by part) out of theirs. `ready` raises
    ConfigError
    if this machine lacks something that scoring takes; a composite's components say so themselves.
    """

    settings: type[Any]
    build: Callable[[Any], Reward]
    version: Callable[[Any], str]
    parts: Callable[[Any], tuple[Part, ...]] = lambda settings: ()
    combine: Callable[[Any, str, Mapping[str, Judgement]], Judgement] | None = None
    ready: Callable[[Any], None] = lambda settings: None


def _build_composite(settings: CompositeSettings) -> Reward:
    version, parts = _composite_version(settings), _composite_parts(settings)
    if not settings.bounded:
        raise ConfigError("composite: state worst and best of every component; only a round measures them")
    rewards = {name: build_reward(name, given) for name, given in settings.asked.items()}
    ends = [cast(PartedReward, reward) for name, reward in rewards.items() if reward_kind(name).combine]
    return CompositeReward(settings, version, parts, rewards, ends)


def _composite_version(settings: CompositeSettings) -> str:
    return composite_version(settings, reward_version)


def _composite_parts(settings: CompositeSettings) -> tuple[Part, ...]:
    return composite_parts(settings, reward_version)


def _combine_composite(
    settings: CompositeSettings, category: str, parts: Mapping[str, Judgement]
) -> Judgement:
    return combine(settings, parts)


REWARDS: Final[Mapping[str, RewardKind]] = {
    "physics": RewardKind(PhysicsSettings, PhysicsReward, physics_version),
    "clip": RewardKind(ClipSettings, ClipReward, clip_version),
    "flow": RewardKind(FlowSettings, FlowReward, flow_version),
    "judge": RewardKind(
        JudgeSettings, JudgeReward, judge_version, judge_parts, combine_parts, require_server
    ),
    "hpsv2": RewardKind(Hpsv2Settings, Hpsv2Reward, hpsv2_version),
    "pickscore": RewardKind(PickScoreSettings, PickScoreReward, pickscore_version),
    "videoscore": RewardKind(VideoScoreSettings, VideoScoreReward, videoscore_version),
    "composite": RewardKind(
        CompositeSettings, _build_composite, _composite_version, _composite_parts, _combine_composite
    ),
    "motion": RewardKind(MotionSettings, MotionGuard, guard_version),
    "sharpness": RewardKind(SharpnessSettings, SharpnessGuard, guard_version),
    "flicker": RewardKind(FlickerSettings, FlickerGuard, guard_version),
}


def build_reward(name: str, settings: object = None) -> Reward:
    """The reward `name`, ready to score.

    Args:
        name: a key of `REWARDS`.
        settings: its settings dataclass, a mapping of some of its fields, or None for the defaults.

    Raises:
        ConfigError: no such reward, an unknown or impossible setting, or weights that cannot be loaded.
    """
    return reward_kind(name).build(reward_settings(name, settings))


def reward_version(name: str, settings: object = None) -> str:
    """Version of the scores that reward `name` would give, without building it: 16 hex digits.

    It changes with the weights, the settings that matter and the code; the device and batch sizes do not
    matter. Arguments and errors as for `build_reward`.
    """
    return reward_kind(name).version(reward_settings(name, settings))


def reward_parts(name: str, settings: object = None) -> tuple[Part, ...]:
    """The parts that reward `name` combines; most have none. Errors as `build_reward`."""
    return reward_kind(name).parts(reward_settings(name, settings))


def require_ready(name: str, settings: object = None) -> None:
    """Check what scoring takes beside weights and settings, such as a server's environment; loads nothing.

    Raises:
        ConfigError: it is not on this machine; says how to get it, and how to do without.
    """
    reward_kind(name).ready(reward_settings(name, settings))


def combine_judgements(
    name: str, settings: object, category: str, parts: Mapping[str, Judgement]
) -> Judgement:
    """A clip's judgement by a reward of parts, from the judgements of its parts by name; loads nothing."""
    combine = reward_kind(name).combine
    assert combine is not None, f"reward {name} has no parts"
    return combine(reward_settings(name, settings), category, parts)


def reward_settings(name: str, settings: object = None) -> Any:
    """`settings` as the dataclass of reward `name`. Raises ConfigError with the nearest known key."""
    kind = reward_kind(name).settings
    if settings is None:
        return kind()
    if isinstance(settings, kind):
        return settings
    if not isinstance(settings, Mapping):
        raise ConfigError(f"settings of reward {name!r} are a {type(settings).__name__}, expected a mapping")
    fields = {field.name: type(field.default) for field in dataclasses.fields(kind)}
    for key, value in settings.items():
        if key not in fields:
            raise ConfigError(f"reward {name!r} has no setting {key!r}{_nearest(str(key), fields)}")
        expected = fields[key]
        if type(value) is not expected and not (expected is float and type(value) is int):
            raise ConfigError(
                f"setting {key!r} of reward {name!r} is {value!r}, expected {expected.__name__}"
            )
    return kind(**settings)


def reward_kind(name: str) -> RewardKind:
    """The entry of `REWARDS`. Raises ConfigError with the nearest name for one that is not there."""
    if name not in REWARDS:
        raise ConfigError(f"there is no reward {name!r}{_nearest(name, REWARDS)}")
    return REWARDS[name]


def _nearest(word: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known) or 'none'}"
