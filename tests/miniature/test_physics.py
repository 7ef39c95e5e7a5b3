from __future__ import annotations

from collections.abc import Callable

import numpy as np

from data.keys import canonical_json
from rewards import LoadedClip, build_reward

Make = Callable[..., LoadedClip]


def test_right_clips_are_1_and_wrong_captions_and_broken_laws_are_0(world_clip: Make) -> None:
    right = [
        world_clip("bounce", "red ball"),
        world_clip("move_left", "blue square"),
        world_clip("squeeze", "green ball"),
    ]
    wrong = [
        world_clip("bounce", "red ball", prompt="a blue ball falls onto the floor and bounces"),
        world_clip("move_left", "blue square", prompt="a blue square moves to the right"),
        world_clip("bounce", "red ball", violation="changes_colour"),
        world_clip("move_left", "blue square", violation="turns_back"),
    ]
    judged = build_reward("physics").score([*right, *wrong])
    assert [judgement.value for judgement in judged] == [1.0] * 3 + [0.0] * 4


def test_the_detail_has_the_graded_score_and_a_reason(world_clip: Make) -> None:
    right, wrong = build_reward("physics").score([world_clip(), world_clip(violation="changes_colour")])
    assert set(right.detail) == {"score", "identity", "motion", "law", "reason"}
    assert all(0 <= right.detail[part] <= 1 for part in ("score", "identity", "motion", "law"))
    assert right.detail["score"] > wrong.detail["score"]
    assert wrong.detail["identity"] < 0.5
    assert len(wrong.detail["reason"]) > 10
    canonical_json(wrong.detail)


def test_a_caption_that_is_not_of_the_world_has_no_value(world_clip: Make) -> None:
    unknown, known = build_reward("physics").score([world_clip(prompt="a cat plays the piano"), world_clip()])
    assert unknown.value is None
    assert "a cat plays the piano" in str(unknown.error)
    assert known.value == 1.0


def test_a_clip_too_short_to_judge_has_no_value(world_clip: Make) -> None:
    clip = world_clip()
    short = LoadedClip("short", clip.prompt, np.ascontiguousarray(clip.frames[:2]), 8.0)
    judged = build_reward("physics").score([short])[0]
    assert judged.value is None
    assert "frames" in str(judged.error)
