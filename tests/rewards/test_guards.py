from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest

from rewards import LoadedClip, build_reward

Make = Callable[..., LoadedClip]


def value(name: str, clip: LoadedClip, **settings: object) -> float:
    judged = build_reward(name, settings).score([clip])[0]
    assert judged.value is not None, judged.error
    return judged.value


def frozen(clip: LoadedClip) -> LoadedClip:
    return replace(clip, frames=np.repeat(clip.frames[:1], len(clip.frames), axis=0))


def blurred(clip: LoadedClip) -> LoadedClip:
    return replace(clip, frames=np.stack([cv2.GaussianBlur(frame, (0, 0), 1.5) for frame in clip.frames]))


def test_a_frozen_clip_does_not_move(world_clip: Make, noise_clip: Make) -> None:
    for clip in (world_clip(), noise_clip()):
        assert value("motion", frozen(clip)) < 1e-3 < 0.01 < value("motion", clip)


def test_motion_grows_with_speed_and_frame_rate(sliding_square: Make) -> None:
    slow, fast = value("motion", sliding_square(step=1)), value("motion", sliding_square(step=2))
    assert 1.6 < fast / slow < 2.4
    assert value("motion", sliding_square(step=1, fps=16.0)) == pytest.approx(2 * slow)


def test_motion_is_a_share_of_the_side_in_large_frames(sliding_square: Make) -> None:
    middle, large = sliding_square(step=2, size=128), sliding_square(step=4, size=256)
    assert value("motion", large) == pytest.approx(value("motion", middle), rel=0.1)


@pytest.mark.parametrize("fps", [None, 0.0, -1.0, float("nan"), float("inf")])
def test_motion_of_unknown_frame_rate_has_no_value(sliding_square: Make, fps: float | None) -> None:
    judged = build_reward("motion").score([sliding_square(fps=fps)])[0]
    assert judged.value is None
    assert "frame rate" in str(judged.error)


def test_blur_lowers_sharpness(world_clip: Make) -> None:
    clip = world_clip()
    assert value("sharpness", blurred(clip)) < 0.5 * value("sharpness", clip)
    assert value("sharpness", replace(clip, frames=np.full_like(clip.frames, 128))) == 0.0


def test_alternating_frames_flicker_most(noise_clip: Make, world_clip: Make) -> None:
    frames = noise_clip(frames=8).frames.copy()
    frames[::2], frames[1::2] = 0, 255
    assert value("flicker", replace(noise_clip(), frames=frames)) == pytest.approx(2.0)
    assert value("flicker", frozen(world_clip())) == 0.0


def test_a_fade_does_not_flicker_and_a_swap_of_colours_does(noise_clip: Make) -> None:
    fade = np.zeros((9, 16, 16, 3), np.uint8) + np.arange(0, 180, 20, dtype=np.uint8)[:, None, None, None]
    assert value("flicker", replace(noise_clip(), frames=fade)) == pytest.approx(0.0, abs=1e-9)
    swap = np.zeros((9, 16, 16, 3), np.uint8)
    swap[::2, ..., 0], swap[1::2, ..., 1] = 150, 150  # red and green by turns
    assert value("flicker", replace(noise_clip(), frames=swap)) > 0.5


def test_true_motion_hardly_flickers(world_clip: Make) -> None:
    clip = world_clip("move_right", "blue square")
    jumpy = clip.frames.copy()
    jumpy[::2] = (jumpy[::2] * 0.9).astype(np.uint8)
    assert value("flicker", clip) < 0.2 * value("flicker", replace(clip, frames=jumpy))


@pytest.mark.parametrize(("name", "frames"), [("motion", 1), ("flicker", 2)])
def test_too_few_frames_have_no_value(name: str, frames: int, noise_clip: Make) -> None:
    judged = build_reward(name).score([noise_clip(frames=frames), noise_clip()])
    assert judged[0].value is None
    assert "frames" in str(judged[0].error)
    assert judged[1].value is not None


def test_two_frames_are_enough_for_motion(sliding_square: Make) -> None:
    two, many = sliding_square(frames=2), sliding_square(frames=9)
    assert value("motion", two, stride=5) == pytest.approx(value("motion", many, stride=1), rel=0.3)
