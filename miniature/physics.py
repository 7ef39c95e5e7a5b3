"""Physics reward: the world's oracle as a judge. It is the truth of the physics world, and of no other."""

from __future__ import annotations

from typing import Final

from data.errors import UserError
from data.settings import Settings
from rewards import CannotJudge, Judgement, LoadedClip, per_clip

# Raise it when `miniature.world.oracle` comes to judge some clip differently, so that no old score passes
# for new.
_CODE: Final = 1


class PhysicsSettings(Settings):
    """The oracle has no settings: its tolerances belong to the world."""


def _judge(clip: LoadedClip, settings: PhysicsSettings) -> Judgement:
    """1 if the clip shows what its caption says and obeys the law it names, else 0.

    `detail` has the oracle's graded score, its parts, and its reason in words. A caption that is not of the
    world has no value: the oracle does not know what it promises.
    """
    from miniature.world.oracle import judge

    try:
        verdict = judge(clip.frames, clip.prompt)
    except UserError as error:  # of this clip: a caption that is not of the world, too few frames
        raise CannotJudge(str(error)) from error
    detail = {
        "score": verdict.score,
        "identity": verdict.identity,
        "motion": verdict.motion,
        "law": verdict.law,
        "reason": verdict.reason,
    }
    return Judgement(1.0 if verdict.passed else 0.0, detail)


REWARD: Final = per_clip(
    "physics",
    PhysicsSettings,
    _judge,
    code=_CODE,
    range=(0.0, 1.0),
    reads="frames in order and the caption",
    threshold=lambda settings: 0.5,
)
