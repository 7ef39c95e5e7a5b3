"""Mixtures in a round: composites whose bounds may first have to be measured on the training clips.

A composite with open bounds is a wish, not yet a reward: it has no scores. `tasks.score.measure` makes it
one, with the bounds in its settings and so in its version; two rounds with other clips have two versions.
"""

from __future__ import annotations

from rewards import RewardRef
from rewards.composite import Mixture


def is_one(reward: RewardRef) -> bool:
    """Whether the reward's parts are rewards of their own."""
    return isinstance(reward.settings, Mixture)


def bounded(reward: RewardRef) -> bool:
    """Whether the reward can give values; false for a composite whose bounds are to be measured."""
    return not isinstance(reward.settings, Mixture) or reward.settings.bounded
