from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest

from rewards import LoadedClip, build_reward, reward_kind

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


@pytest.mark.parametrize("name", ["motion", "tempo"])
@pytest.mark.parametrize("fps", [None, 0.0, -1.0, float("nan"), float("inf")])
def test_speed_of_unknown_frame_rate_has_no_value(sliding_square: Make, fps: float | None, name: str) -> None:
    judged = build_reward(name).score([sliding_square(fps=fps)])[0]
    assert judged.value is None
    assert "frame rate" in str(judged.error)


def test_blur_lowers_sharpness(world_clip: Make) -> None:
    clip = world_clip()
    assert value("sharpness", blurred(clip)) < 0.7 * value("sharpness", clip)
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


@pytest.mark.parametrize(("name", "frames"), [("motion", 1), ("own_motion", 1), ("tempo", 2), ("flicker", 2)])
def test_too_few_frames_have_no_value(name: str, frames: int, noise_clip: Make) -> None:
    judged = build_reward(name).score([noise_clip(frames=frames), noise_clip()])
    assert judged[0].value is None
    assert "frames" in str(judged[0].error)
    assert judged[1].value is not None


def test_two_frames_are_enough_for_motion(sliding_square: Make) -> None:
    two, many = sliding_square(frames=2), sliding_square(frames=9)
    assert value("motion", two, stride=5) == pytest.approx(value("motion", many, stride=1), rel=0.3)


def textured(size: int = 160) -> np.ndarray:
    """A picture with edges everywhere: blurred noise, [H, W, 3]."""
    noise = np.random.default_rng(size).integers(0, 256, (size, size, 3)).astype(np.uint8)
    picture = cv2.GaussianBlur(noise, (0, 0), 2)
    return cv2.normalize(picture, np.empty(0), 0, 255, cv2.NORM_MINMAX)


def swaying(clip: LoadedClip, rate: float, far: float = 3.0) -> LoadedClip:
    """A coarse picture that sways by `far` pixels to either side, by `rate` radians a frame."""
    picture = cv2.GaussianBlur(textured(), (0, 0), 8)
    picture = cv2.normalize(picture, np.empty(0), 0, 255, cv2.NORM_MINMAX)
    shown = [
        cv2.warpAffine(picture, np.array([[1, 0, far * np.sin(rate * t)], [0, 1, 0]]), (160, 160))
        for t in range(25)
    ]
    return replace(clip, frames=np.stack(shown)[:, 16:144, 16:144])


def test_tempo_follows_how_fast_things_go_and_hardly_how_far_or_how_bright(noise_clip: Make) -> None:
    slow, fast, far = (swaying(noise_clip(), *how) for how in ((0.4, 2.0), (0.5, 2.0), (0.4, 4.0)))
    assert 1.15 < value("tempo", fast) / value("tempo", slow) < 1.35
    assert value("tempo", far) < 1.25 * value("tempo", slow)
    assert value("motion", far) > 1.6 * value("motion", slow)
    dark = replace(slow, frames=slow.frames // 2)
    assert value("tempo", dark) == pytest.approx(value("tempo", slow), rel=0.1)
    twice = replace(slow, fps=2 * float(slow.fps or 0))
    assert value("tempo", twice) == pytest.approx(2 * value("tempo", slow))
    assert value("tempo", frozen(slow)) == 0.0


def test_a_still_that_slides_or_comes_nearer_moves_and_has_no_motion_of_its_own(noise_clip: Make) -> None:
    picture = textured()
    sliding = np.stack([picture[16:144, 2 * i : 2 * i + 128] for i in range(9)])
    grown = [cv2.getRotationMatrix2D((64, 64), 2 * i, 1.02**i) for i in range(9)]
    nearer = np.stack(
        [cv2.warpAffine(picture, one, (128, 128), borderMode=cv2.BORDER_REFLECT) for one in grown]
    )
    for frames in (sliding, nearer):
        clip = replace(noise_clip(), frames=frames)
        assert value("motion", clip) > 0.05
        assert value("own_motion", clip) < 0.15 * value("motion", clip)


def test_what_moves_before_a_camera_that_moves_is_own_motion(noise_clip: Make) -> None:
    picture, thing = textured(), textured(40)[::-1]
    sliding = np.stack([picture[16:144, 2 * i : 2 * i + 128] for i in range(9)])
    moving, still = sliding.copy(), np.repeat(sliding[:1], 9, axis=0)
    for index in range(9):
        for frames in (moving, still):
            frames[index, 40 + 3 * index : 80 + 3 * index, 50:90] = thing
    of_camera, without = (value("own_motion", replace(noise_clip(), frames=one)) for one in (moving, still))
    assert of_camera == pytest.approx(without, rel=0.5)
    assert of_camera > 5 * value("own_motion", replace(noise_clip(), frames=sliding))


def test_a_lone_thing_before_a_plain_wall_is_no_camera(sliding_square: Make) -> None:
    clip = sliding_square(step=2, size=128)
    assert value("own_motion", clip) == pytest.approx(value("motion", clip))


def test_a_checkerboard_feigns_no_sharpness_and_shows_as_grain(world_clip: Make) -> None:
    clip = world_clip()
    rows, columns = np.indices(clip.frames.shape[1:3])
    grid = (8 * ((rows + columns) % 2))[None, ..., None]
    feigned = replace(clip, frames=np.clip(blurred(clip).frames + grid, 0, 255).astype(np.uint8))
    assert value("sharpness", feigned) < 0.75 * value("sharpness", clip)
    plain = replace(clip, frames=np.clip(clip.frames + grid, 0, 255).astype(np.uint8))
    assert value("sharpness", plain) == pytest.approx(value("sharpness", clip), rel=0.1)
    assert value("grain", plain) > 1.5 * value("grain", clip)


def test_colourfulness_is_that_of_hasler_and_suesstrunk(noise_clip: Make) -> None:
    frames = np.zeros((2, 2, 2, 3), np.uint8)
    frames[:, 0] = (200, 100, 50)  # rg 100, yb 100; below black: spreads 50 and 50, means 50 and 50
    expected = np.hypot(50, 50) * 1.3
    assert value("colour", replace(noise_clip(), frames=frames)) == pytest.approx(expected)
    grey = np.repeat(noise_clip().frames[..., :1], 3, axis=-1)
    assert value("colour", replace(noise_clip(), frames=grey)) == 0.0


def test_luma_is_the_weighted_mean_of_the_colours(noise_clip: Make) -> None:
    frames = np.zeros((2, 4, 4, 3), np.uint8)
    frames[..., 1] = 255
    assert value("luma", replace(noise_clip(), frames=frames)) == pytest.approx(0.587)
    assert value("luma", replace(noise_clip(), frames=np.full_like(frames, 255))) == pytest.approx(1.0)


@pytest.mark.parametrize("within", [(1.2, 1.5), (0.8, 0.9), (-0.1, None)])
def test_limits_of_a_guard_hold_the_ratio_one(within: tuple[float, float | None]) -> None:
    with pytest.raises(TypeError, match="does not hold the ratio 1"):
        replace(reward_kind("luma"), within=within)
