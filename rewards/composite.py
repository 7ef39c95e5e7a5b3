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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import numpy as np
from pydantic import model_validator

from data.errors import ConfigError
from data.keys import digest
from data.settings import Settings, setting
from rewards.base import Judgement, LoadedClip, Part, PartedReward, PartScores, failed
from rewards.kind import Named, RewardKind, RewardRef

NAME: Final = "composite"
MOTION: Final = "motion"
# Raise it when the same components and settings would give other values.
_CODE: Final = 2
_LOW, _HIGH = 5.0, 95.0


class Component(Settings):
    """One reward of a mixture. Its bounds are in its own unit; worst lies above best where less is better."""

    weight: float = setting(1.0, "Weight", "Only the weights' proportions matter.", gt=0.0)
    worst: float | None = setting(
        None,
        "Worst",
        "Value that counts as 0; above best where less is better. Null, as best: the training clips' 5th "
        "percentile.",
    )
    best: float | None = setting(None, "Best", "Value that counts as 1; null: the 95th percentile.")

    @model_validator(mode="after")
    def _is_a_scale(self) -> Self:
        if (self.worst is None) != (self.best is None):
            raise ValueError("state both worst and best, or neither")
        if self.worst is not None and self.worst == self.best:
            raise ValueError(f"worst and best are both {self.worst:g}: they must differ")
        return self


class CompositeSettings(Settings):
    """The composite reward: a weighted mean of other rewards, each brought to 0 to 1."""

    components: dict[str, Component] = setting(
        {}, "Components", "By a reward's name; each must be scored too."
    )
    motion_floor: float = setting(
        0.0,
        "Motion floor",
        "Clips that move less (reward motion, short sides a second) are worth 0; 0: no floor.",
        unit="short sides/s",
        ge=0.0,
    )

    @property
    def asked(self) -> tuple[str, ...]:
        """Every reward that it needs, by name: the components, and `motion` for a floor."""
        floor = (MOTION,) if self.motion_floor > 0 else ()
        return tuple(dict.fromkeys((*self.components, *floor)))


Bounds = tuple[float, float]


@dataclass(frozen=True)
class Mixture:
    """A composite with the rewards that it mixes.

    Attributes:
        settings: what a recipe says.
        asked: the rewards in `settings.asked`, in that order.
        bounds: (worst, best) of each component by name; one that lacks is to be measured on training clips.
    """

    settings: CompositeSettings
    asked: tuple[RewardRef, ...]
    bounds: Mapping[str, Bounds]

    @property
    def parts(self) -> tuple[Part, ...]:
        """The rewards that it combines, as parts."""
        return tuple(Part(ref.name, ref.version, kind=ref.kind) for ref in self.asked)

    @property
    def bounded(self) -> bool:
        """Whether all bounds are known, so that clips can have values."""
        return all(name in self.bounds for name in self.settings.components)


def is_mixture(reward: RewardRef) -> bool:
    """Whether the reward's parts are rewards of their own."""
    return isinstance(reward.settings, Mixture)


def unmixed(reward: RewardRef) -> tuple[RewardRef, ...]:
    """The rewards that a mixture mixes; of any other, itself."""
    return reward.settings.asked if isinstance(reward.settings, Mixture) else (reward,)


def is_bounded(reward: RewardRef) -> bool:
    """Whether the reward can give values; a mixture with open bounds has none yet, and no version."""
    return not isinstance(reward.settings, Mixture) or reward.settings.bounded


def mix(settings: CompositeSettings, named: Named) -> Mixture:
    """The mixture of the rewards that the settings name.

    Raises:
        ConfigError: there is no component, or one is a mixture itself, or what `named` raises.
    """
    if not settings.components:
        raise ConfigError("composite: it has no components; name the rewards that it mixes")
    asked = tuple(named(name) for name in settings.asked)
    nested = [ref.name for ref in asked if is_mixture(ref)]
    if nested:
        raise ConfigError(f"composite: {nested[0]} is a composite, which is no component of a composite")
    stated = {
        name: (one.worst, one.best)
        for name, one in settings.components.items()
        if one.worst is not None and one.best is not None
    }
    return Mixture(settings, asked, stated)


def composite_version(mixture: Mixture) -> str:
    """Digest of the components' versions, weights and bounds, and of the floor; their names are not in it."""
    of = {ref.name: [ref.kind, ref.version] for ref in mixture.asked}
    mixed = [
        [*of[name], one.weight, *mixture.bounds.get(name, (None, None))]
        for name, one in mixture.settings.components.items()
    ]
    floor = [mixture.settings.motion_floor, of[MOTION]] if mixture.settings.motion_floor > 0 else None
    return digest([NAME, _CODE, sorted(mixed, key=repr), floor])[:16]


def measured(mixture: Mixture, values: Mapping[str, Sequence[float | None]]) -> Mixture:
    """The same with every open bound put at the 5th and 95th percentile of that reward's `values`.

    Null values are left out. A reward that does not vary, or has no value, gets equal bounds, with which no
    clip has a value: a constant says nothing, and must not say it as a number.
    """
    bounds = dict(mixture.bounds)
    for name in mixture.settings.components:
        known = [value for value in values[name] if value is not None]
        if name not in bounds and known:
            worst, best = np.percentile(np.array(known, np.float64), [_LOW, _HIGH])
            bounds[name] = (float(worst), float(best))
        bounds.setdefault(name, (0.0, 0.0))
    return replace(mixture, bounds=bounds)


def combine(mixture: Mixture, judgements: Mapping[str, Judgement]) -> Judgement:
    """The mixture's judgement of one clip from those of the rewards that it asks.

    `detail` has, for each component, its raw and normalised value, weight and bounds; the mean before the
    gate; and the gate. Null if anything is null, or has no scale, with every reason.
    """
    settings = mixture.settings
    lacking = [name for name in settings.asked if name not in judgements]
    reasons = [f"{name}: it was not asked" for name in lacking]
    reasons += [f"{name}: {judged.error}" for name, judged in judgements.items() if judged.error is not None]
    again = any(judged.again for judged in judgements.values())
    components: dict[str, Any] = {}
    for name, one in settings.components.items():
        raw = judgements[name].value if name in judgements else None
        worst, best = mixture.bounds.get(name, (None, None))
        normalised = None
        if worst is None or best is None:
            reasons.append(f"{name}: its bounds are not known yet; state worst and best")
        elif worst == best:
            reasons.append(f"{name}: worst and best are both {worst:g}, so it has no scale")
        elif raw is not None:
            normalised = float(np.clip((raw - worst) / (best - worst), 0.0, 1.0))
        components[name] = {
            "raw": raw, "normalised": normalised, "weight": one.weight, "worst": worst, "best": best,
        }  # fmt: skip
    detail: dict[str, Any] = {"components": components}
    if settings.motion_floor > 0:
        moved = judgements[MOTION].value if MOTION in judgements else None
        passed = None if moved is None else moved >= settings.motion_floor
        detail["gate"] = {"motion": moved, "floor": settings.motion_floor, "passed": passed}
    if reasons:
        return failed("; ".join(reasons), detail, again)
    total = sum(one.weight for one in settings.components.values())
    mean = (
        sum(one.weight * components[name]["normalised"] for name, one in settings.components.items()) / total
    )
    # Weights that do not add up to exactly 1 may carry a mean of ones a rounding past it.
    mean = min(float(mean), 1.0)
    detail["mean"] = mean
    stands_still = settings.motion_floor > 0 and not detail["gate"]["passed"]
    return Judgement(0.0 if stands_still else mean, detail)


class CompositeReward(PartedReward):
    """Scores clips by its components, which it builds.

    In a round nothing of it is needed: the components' scores are in the store, and `combine` does the rest.
    It exists for clips that nobody stored, such as those that a calibration tampered with.

    Raises:
        ConfigError: a component's bounds are open: only a round measures them.
        UserError: a component cannot be built.
    """

    name = NAME
    range = (0.0, 1.0)

    def __init__(self, mixture: Mixture) -> None:
        from rewards.registry import build_reward

        if not mixture.bounded:
            raise ConfigError(
                "composite: state worst and best of every component; only a round measures them"
            )
        self.settings = mixture
        self.version = composite_version(mixture)
        self.parts = mixture.parts
        self._rewards = {ref.name: build_reward(ref.kind, ref.settings) for ref in mixture.asked}

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

    def combined(self, category: str, parts: Mapping[str, Judgement]) -> Judgement:
        """See `combine`."""
        return combine(self.settings, parts)

    def close(self) -> None:
        """End what the components started."""
        for reward in self._rewards.values():
            if isinstance(reward, PartedReward):
                reward.close()


REWARD: Final = RewardKind(
    name=NAME,
    settings=CompositeSettings,
    build=CompositeReward,
    version=composite_version,
    range=CompositeReward.range,
    reads="what the rewards that it mixes read",
    parts=lambda mixture: mixture.parts,
    combine=lambda mixture, category, parts: combine(mixture, parts),
    bind=mix,
)
