"""Rewards: the judges of clips.

    LoadedClip (frames, prompt, fps)  ->  Reward.score  ->  Judgement (a value in range, or None and why)

What comes in: clips whose frames were decoded once, by the caller, for all rewards.
What goes out: one judgement a clip; the caller writes it as a `Score` row with the reward's name and version.
Who calls: tasks/ (score, evaluate). This package knows data/ and neither models/ nor tasks/.

    physics      the world's oracle, 1 or 0                             exact, for the miniature only
    clip         open_clip, mean cosine of frames and prompt, -1 to 1    what is shown, never how it moves
    flow         RAFT, speed of the fastest 5% of pixels, sides a second that it moves, never how
    judge        a vision-language model's P(yes) to a rubric            what is asked, as well as it can see
    hpsv2, pickscore    models of what people prefer in pictures         single frames, as clip
    videoscore   a model of what people see in a video, five aspects     from 1 to 4, order of frames included
    composite    a weighted mean of others, 0 to 1                       what they see above a floor of motion
    motion, sharpness, flicker                                    guards: a cheated reward shows here

Open first: `base` (the protocol, and the guard that keeps failures from becoming numbers), then `build`
(names -> rewards, and versions without loading anything). One reward is one file: settings, version, class.
`mini/` trains the small CLIP and RAFT that the miniature uses; `loading` finds weights.

To add a reward: a file with its settings dataclass, `..._version` and a class whose `score` is `guarded`;
one line in `build.REWARDS`; one test. A reward of parts (`judge/`: a part is a question) is scored and kept
part by part, so that a new part asks nothing else again.
"""

from rewards.base import Judgement, LoadedClip, Part, PartedReward, PartScores, Reward
from rewards.build import (
    REWARDS,
    build_reward,
    combine_judgements,
    require_ready,
    reward_parts,
    reward_settings,
    reward_version,
)

__all__ = [
    "REWARDS",
    "Judgement",
    "LoadedClip",
    "Part",
    "PartScores",
    "PartedReward",
    "Reward",
    "build_reward",
    "combine_judgements",
    "require_ready",
    "reward_parts",
    "reward_settings",
    "reward_version",
]
