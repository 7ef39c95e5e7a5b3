"""Mixtures in a round: composites whose bounds may first have to be measured on the training clips.

A composite with open bounds is a wish, not yet a reward: it has no scores. `measured` makes it one, with the
bounds in its settings and so in its version; two rounds with other clips have two versions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rewards import RewardRef, reward_ref
from rewards.composite import Mixture
from rewards.composite import measured as with_bounds


def is_one(reward: RewardRef) -> bool:
    """Whether the reward's parts are rewards of their own."""
    return isinstance(reward.settings, Mixture)


def bounded(reward: RewardRef) -> bool:
    """Whether the reward can give values; false for a composite whose bounds are to be measured."""
    return not isinstance(reward.settings, Mixture) or reward.settings.bounded


def measured(reward: RewardRef, values: Mapping[str, Sequence[float | None]]) -> RewardRef:
    """The composite with its open bounds taken from `values` of the training clips, by component."""
    return reward_ref(reward.name, reward.kind, with_bounds(reward.settings, values))
