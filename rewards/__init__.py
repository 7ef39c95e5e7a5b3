"""Rewards: the judges of clips.

    LoadedClip (frames, prompt, fps)  ->  Reward.score  ->  Judgement (a value in range, or None and why)

What comes in: clips whose frames were decoded once, by the caller, for all rewards.
What goes out: one judgement a clip; the caller writes it as a `Score` row with the reward's name and version.
Who calls: tasks/ (score, evaluate). This package knows data/ and neither models/ nor tasks/.

    clip         open_clip, mean cosine of frames and prompt, -1 to 1    what is shown, never how it moves
    flow         RAFT, speed of the fastest 5% of pixels, sides a second that it moves, never how
    judge        a vision-language model's P(yes) to a rubric            what is asked, as well as it can see
    hpsv2, pickscore    models of what people prefer in pictures         single frames, as clip
    videoscore   a model of what people see in a video, five aspects     from 1 to 4, order of frames included
    composite    a weighted mean of others, 0 to 1                       what they see above a floor of motion
    motion, own_motion, tempo, sharpness, grain, flicker, colour, luma   guards: a cheated reward shows here

Open first: `base` (the protocol, and the guard that keeps failures from becoming numbers), then `kind` (what
a reward is to the rest of the loop) and `registry` (all of them by name). One reward is one file: settings,
version, class, and the object REWARD that carries them; `loading` finds weights.

To add a reward: a file with REWARD in it, here or in a package of its own (docs/add-a-reward.md). A reward of
parts (`judge/`: a part is a question) is scored and kept part by part, so that a new part asks nothing else
again.
"""

from rewards.base import CannotJudge, Judgement, LoadedClip, Part, PartedReward, PartScores, Reward, guarded
from rewards.kind import NetworkSettings, RewardKind, RewardRef, per_clip, version_of
from rewards.registry import (
    build_reward,
    reward_kind,
    reward_kinds,
    reward_ref,
    reward_settings,
    reward_version,
)

__all__ = [
    "CannotJudge",
    "Judgement",
    "LoadedClip",
    "NetworkSettings",
    "Part",
    "PartScores",
    "PartedReward",
    "Reward",
    "RewardKind",
    "RewardRef",
    "build_reward",
    "guarded",
    "per_clip",
    "reward_kind",
    "reward_kinds",
    "reward_ref",
    "reward_settings",
    "reward_version",
    "version_of",
]
