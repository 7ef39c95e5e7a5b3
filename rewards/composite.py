"""Composite reward: a weighted mean of other rewards' values, each brought to [0, 1] first.

    n_i   = clip((r_i - worst_i) / (best_i - worst_i), 0, 1)
    value = sum_i w_i n_i / sum_i w_i,   or 0 where the clip moves less than the motion floor

Bounds are stated, or measured: the 5th to 95th percentile of the training clips, as graded shaping has them
(Furuta et al., 2024, arXiv 2412.02617, section 4). Measured bounds become settings (`measured`) before the
first clip gets a value, so the version names them. The floor keeps a mixture from being won by standing
still: CLIP and preference models look at single frames. Components are rewards of their own, kept raw in
rows of their own; here they are parts, and to combine them loads nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from data.errors import ConfigError
from data.keys import digest
from rewards.base import Judgement, LoadedClip, Part, PartedReward, PartScores, Reward, failed, guarded

NAME: Final = "composite"
MOTION: Final = "motion"
# Raise it when the same components and settings would give other values.
_CODE: Final = 1
_LOW, _HIGH = 5.0, 95.0


@dataclass(frozen=True)
class Component:
    """One reward of a mixture.

    Attributes:
        reward: its name; not a composite.
        settings: its settings dataclass; None: its defaults.
        weight: greater than 0; only the weights' proportions matter.
        worst: value that counts as 0, in the reward's own unit. It lies above `best` where less is better.
        best: value that counts as 1. Both None: measured on the training clips, more being better.
    """

    reward: str
    settings: Any = None
    weight: float = 1.0
    worst: float | None = None
    best: float | None = None

    def __post_init__(self) -> None:
        if self.reward == NAME:
            raise ConfigError("composite: a composite is no component of a composite")
        if not self.weight > 0:
            raise ConfigError(
                f"composite: the weight of {self.reward} is {self.weight}, must be greater than 0"
            )
        if (self.worst is None) != (self.best is None):
            raise ConfigError(f"composite: {self.reward} has one of worst and best; state both, or neither")

    @property
    def bounded(self) -> bool:
        """Whether its bounds are known."""
        return self.worst is not None


@dataclass(frozen=True)
class CompositeSettings:
    """Settings of a mixture.

    Attributes:
        components: two or more rewards, or one to be gated; none twice.
        motion_floor: least mean speed by the `motion` guard, in short sides a second, of a clip that is worth
            anything; 0: no floor.
        motion: settings of the `motion` guard that the floor asks; None: its defaults.
    """

    components: tuple[Component, ...] = ()
    motion_floor: float = 0.0
    motion: Any = None

    def __post_init__(self) -> None:
        names = [component.reward for component in self.components]
        if len(set(names)) != len(names):
            raise ConfigError(f"composite: a component is named twice: {', '.join(names)}")
        if not self.motion_floor >= 0:
            raise ConfigError(f"composite: motion_floor is {self.motion_floor}, must be 0 or more")

    @property
    def bounded(self) -> bool:
        """Whether all bounds are known, so that clips can have values."""
        return all(component.bounded for component in self.components)

    @property
    def asked(self) -> dict[str, Any]:
        """Settings of every reward that it needs, by name: the components, and `motion` for a floor."""
        needed = {component.reward: component.settings for component in self.components}
        if self.motion_floor > 0:
            needed.setdefault(MOTION, self.motion)
        return needed


Version = Callable[[str, Any], str]


def composite_parts(settings: CompositeSettings, version: Version) -> tuple[Part, ...]:
    """The rewards that it combines; `version` tells a reward's version from its name and settings.

    Raises:
        ConfigError: no component, or what `version` raises.
    """
    if not settings.components:
        raise ConfigError("composite: it has no components; name the rewards that it mixes")
    return tuple(Part(name, version(name, given)) for name, given in settings.asked.items())


def composite_version(settings: CompositeSettings, version: Version) -> str:
    """Digest of the components' versions, weights and bounds, and of the floor. Errors as for the parts."""
    parts = sorted([part.name, part.version] for part in composite_parts(settings, version))
    mixed = sorted([one.reward, one.weight, one.worst, one.best] for one in settings.components)
    return digest([NAME, _CODE, parts, mixed, settings.motion_floor])[:16]


def measured(settings: CompositeSettings, values: Mapping[str, Sequence[float | None]]) -> CompositeSettings:
    """The same with every open bound put at the 5th and 95th percentile of that reward's `values`.

    Null values are left out. A reward that does not vary, or has no value, gets equal bounds, with which no
    clip has a value: a constant says nothing, and must not say it as a number.
    """

    def bound(component: Component) -> Component:
        known = [value for value in values[component.reward] if value is not None]
        if component.bounded:
            return component
        if not known:
            return replace(component, worst=0.0, best=0.0)
        worst, best = np.percentile(np.array(known, np.float64), [_LOW, _HIGH])
        return replace(component, worst=float(worst), best=float(best))

    return replace(settings, components=tuple(bound(component) for component in settings.components))


def combine(settings: CompositeSettings, judgements: Mapping[str, Judgement]) -> Judgement:
    """The mixture's judgement of one clip from those of the rewards in `settings.asked`.

    `detail` has, for each component, its raw and normalised value, weight and bounds; the mean before the
    gate; and the gate. Null if anything is null, or has no scale, with every reason.
    """
    lacking = [name for name in settings.asked if name not in judgements]
    reasons = [f"{name}: it was not asked" for name in lacking]
    reasons += [f"{name}: {judged.error}" for name, judged in judgements.items() if judged.error is not None]
    again = any(judged.again for judged in judgements.values())
    components: dict[str, Any] = {}
    for one in settings.components:
        raw = judgements[one.reward].value if one.reward in judgements else None
        normalised = None
        if one.worst is None or one.best is None:
            reasons.append(f"{one.reward}: its bounds are not known yet; state worst and best")
        elif one.worst == one.best:
            reasons.append(f"{one.reward}: worst and best are both {one.worst:g}, so it has no scale")
        elif raw is not None:
            normalised = float(np.clip((raw - one.worst) / (one.best - one.worst), 0.0, 1.0))
        components[one.reward] = {
            "raw": raw, "normalised": normalised, "weight": one.weight, "worst": one.worst, "best": one.best,
        }  # fmt: skip
    detail: dict[str, Any] = {"components": components}
    if settings.motion_floor > 0:
        moved = judgements[MOTION].value if MOTION in judgements else None
        passed = None if moved is None else moved >= settings.motion_floor
        detail["gate"] = {"motion": moved, "floor": settings.motion_floor, "passed": passed}
    if reasons:
        return failed("; ".join(reasons), detail, again)
    total = sum(one.weight for one in settings.components)
    mean = sum(one.weight * components[one.reward]["normalised"] for one in settings.components) / total
    # Weights that do not add up to exactly 1 may carry a mean of ones a rounding past it.
    mean = min(float(mean), 1.0)
    detail["mean"] = mean
    stands_still = settings.motion_floor > 0 and not detail["gate"]["passed"]
    return Judgement(0.0 if stands_still else mean, detail)


class CompositeReward:
    """Scores clips by its components, which it is given ready to score.

    In a round nothing of it is needed: the components' scores are in the store, and `combine` does the rest.
    It exists for clips that nobody stored, such as those that a calibration tampered with.

    Args:
        settings: the mixture; all bounds are known.
        version: see `composite_version`.
        parts: see `composite_parts`.
        rewards: every reward in `settings.asked`, by name.
        ends: those among them that have to be closed.
    """

    name: Final = NAME
    range: Final = (0.0, 1.0)

    def __init__(
        self,
        settings: CompositeSettings,
        version: str,
        parts: tuple[Part, ...],
        rewards: Mapping[str, Reward],
        ends: Sequence[PartedReward] = (),
    ) -> None:
        assert settings.bounded, "a component's bounds are not known"
        self.settings = settings
        self.version = version
        self.parts = parts
        self._rewards = rewards
        self._ends = ends

    @guarded
    def score(self, clips: Sequence[LoadedClip]) -> list[Judgement]:
        """Every component of every clip, combined."""
        scored = {name: reward.score(clips) for name, reward in self._rewards.items()}
        return [
            combine(self.settings, {name: judged[place] for name, judged in scored.items()})
            for place in range(len(clips))
        ]

    def score_parts(self, wanted: Mapping[str, Sequence[LoadedClip]]) -> PartScores:
        """Judgements of the clips that each component is wanted of."""
        return PartScores(
            {
                name: {
                    clip.clip_id: judged
                    for clip, judged in zip(clips, self._rewards[name].score(clips), strict=True)
                }
                for name, clips in wanted.items()
                if clips
            }
        )

    def close(self) -> None:
        """End what the components started."""
        for reward in self._ends:
            reward.close()
