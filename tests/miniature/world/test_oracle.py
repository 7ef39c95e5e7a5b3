import cv2
import numpy as np
import pytest

from data.errors import UserError
from data.video import decode_mp4, encode_mp4
from miniature.world.catalog import TEMPLATES, Subject, caption, parse
from miniature.world.oracle import PASS, judge
from miniature.world.render import render
from miniature.world.scene import sample_scene
from miniature.world.table import soften, wrong_caption

BROKEN = [(name, violation) for name, t in TEMPLATES.items() for violation in t.violations]


def told(clip, text):
    verdict = judge(clip, text)
    assert not verdict.passed
    return verdict.reason


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_right_clip_passes(name, clips):
    for frames, text in clips(name, count=3):
        verdict = judge(frames, text)
        assert verdict.passed, (text, verdict)
        assert verdict.reason == "as it should be"
        assert min(verdict.identity, verdict.motion, verdict.law) >= PASS
        assert verdict.score > 0.75


@pytest.mark.parametrize(("name", "violation"), BROKEN)
def test_a_broken_law_is_seen(name, violation, clips):
    for frames, text in clips(name, violation, count=2):
        verdict = judge(frames, text)
        assert not verdict.passed, (text, verdict)
        assert min(verdict.identity, verdict.motion, verdict.law) < PASS
        assert 0 <= verdict.score <= 1
        assert verdict.reason


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_wrong_caption_is_seen(name, clips):
    rng = np.random.default_rng(1)
    for frames, text in clips(name, count=3):
        for _ in range(3):
            wrong = wrong_caption(name, parse(text).subjects, rng)
            assert not judge(frames, wrong).passed, (text, wrong)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_right_clip_passes_after_a_codec_and_after_a_soft_decoder(name, clips):
    rng = np.random.default_rng(2)
    [(frames, text), (second, other)] = clips(name, count=2, seed=5)
    assert judge(decode_mp4(encode_mp4(frames, fps=8))[0], text).passed
    assert judge(soften(second, rng), other).passed


@pytest.mark.parametrize(("size", "frames"), [((96, 128), 25), (32, 17), ((80, 64), 33), (64, 9)])
def test_any_size_and_length_will_do(size, frames, clips):
    for name, template in TEMPLATES.items():
        [(right, text)] = clips(name, size=size, frames=frames, seed=3)
        assert judge(right, text).passed, (text, judge(right, text))
        violation = template.violations[0]
        [(broken, text)] = clips(name, violation, size=size, frames=frames, seed=3)
        assert not judge(broken, text).passed, (text, violation)


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_is_no_film_of_anything_never_passes(name, clips):
    [(frames, text)] = clips(name)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, frames.shape).astype(np.uint8)
    assert told(np.repeat(frames[:1], 17, axis=0), text)
    assert told(np.repeat(frames[6:7], 17, axis=0), text)
    assert "there is no" in told(np.zeros_like(frames), text)
    assert "there is no" in told(np.full_like(frames, 237), text)
    assert told(noise, text)
    assert told(frames[rng.permutation(17)], text)


REASONS = [
    ("move_right", "changes_colour", "turns"),
    ("move_right", "changes_shape", "becomes a"),
    ("move_right", "vanishes", "vanished at frame"),
    ("move_right", "stops_midway", "stopped at frame"),
    ("move_right", "turns_back", "turned back at frame"),
    ("move_right", "wrong_way", "moves the wrong way"),
    ("move_right", "grows", "grows"),
    ("move_right", "duplicates", "a second {colour} blob appeared in frame"),
    ("slide", "never_stops", "does not come to rest"),
    ("drop", "floats", "stopped at frame"),
    ("drop", "turns_back", "turned back at frame"),
    ("hit", "loses_momentum", "does not go"),
    ("hit", "acts_at_distance", "do not touch"),
    ("squeeze", "never_relaxes", "does not spring back"),
    ("squeeze", "stays_rigid", "is not squeezed flat"),
    ("squeeze", "changes_area", "shrinks"),
    ("wobble", "never_relaxes", "does not settle"),
    ("press", "springs_back", "does not stay flat"),
    ("splat", "stays_rigid", "does not splat"),
    ("lift_from_box", "never_leaves", "does not move"),
    ("lift_from_box", "stops_midway", "stopped at frame"),
    ("lift_from_box", "vanishes", "vanished a"),
    ("lift_beside", "takes_both", "vanished at frame"),
    ("fall_together", "falls_slowly", "do not fall alike"),
    ("bounce", "gains_energy", "bounces higher than it fell from"),
]


@pytest.mark.parametrize(("name", "violation", "words"), REASONS)
def test_the_reason_names_the_fault(name, violation, words, clips):
    for frames, text in clips(name, violation, count=2, seed=1):
        subject = parse(text).subjects[0]
        reason = told(frames, text)
        assert words.format(colour=subject.colour) in reason
        if "blob" not in words:
            assert any(str(s) in reason for s in parse(text).subjects)


def test_the_frame_of_a_reason_is_the_frame_of_the_fault():
    subjects = (Subject("red", "ball"),)
    scene = sample_scene("move_right", subjects, np.random.default_rng(0))
    frames = render([scene])[0].numpy()
    text = caption("move_right", subjects)
    empty = frames.copy()
    empty[9:] = empty[0, 0, 0]
    assert judge(empty, text).reason == "the red ball vanished at frame 9"
    stopped = frames.copy()
    stopped[7:] = stopped[7]
    assert judge(stopped, text).reason == "the red ball stopped at frame 7"
    twin = frames.copy()
    for frame in twin[5:]:
        cv2.circle(frame, (32, 8 if scene.y[0, 0] > 0.5 else 56), 6, (230, 26, 26), -1)
    assert judge(twin, text).reason == "a second red blob appeared in frame 5"
    for frame in twin[4:]:
        cv2.circle(frame, (10, 8 if scene.y[0, 0] > 0.5 else 56), 6, (30, 56, 242), -1)
    assert judge(twin, text).reason == "a strange blue blob appeared in frame 4"


def test_captions_are_told_apart_by_colour_and_by_shape():
    subjects = (Subject("red", "ball"),)
    frames = render([sample_scene("bounce", subjects, np.random.default_rng(4))])[0].numpy()
    assert told(frames, "a blue ball falls onto the floor and bounces") == "there is no blue ball"
    assert "is a ball in frame 0" in told(frames, "a red square falls onto the floor and bounces")
    assert told(frames, "a red ball moves straight up") == "there is a floor that nobody named"


def test_one_bad_frame_is_forgiven_and_three_are_not(clips):
    [(frames, text)] = clips("move_left")
    blank = np.full_like(frames[0], 237)
    one, three = frames.copy(), frames.copy()
    one[8] = blank
    three[7:10] = blank
    assert judge(one, text).passed
    assert "vanished at frame 7" in told(three, text)


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize(
    "gone", [slice(0, 8), slice(0, 14), slice(0, None, 2), slice(9, None), slice(4, 13)], ids=str
)
def test_a_subject_that_is_missing_for_long_is_judged_all_the_same(name, gone, clips):
    for frames, text in clips(name, count=2):
        coloured = np.ptp(frames.astype(np.int16), axis=3) > 30
        coloured[[t for t in range(len(frames)) if t not in range(len(frames))[gone]]] = False
        frames[coloured] = 237
        verdict = judge(frames, text)
        assert 0 <= verdict.score <= 1
        if gone.start == 0:  # later on, an object that is taken away may be missing
            assert not verdict.passed, text


def test_grades_fall_as_a_fault_grows():
    subjects = (Subject("red", "ball"),)
    laws = []
    for late in (0.0, 0.02, 0.04, 0.08):
        scene = sample_scene("move_right", subjects, np.random.default_rng(0))
        scene.x[0, 8:] -= np.float32(late)
        laws.append(judge(render([scene])[0].numpy(), caption("move_right", subjects)).law)
    assert laws == sorted(laws, reverse=True)
    assert laws[0] > 0.95
    assert laws[-1] < 0.8


def test_what_cannot_be_judged_is_refused(clips):
    [(frames, text)] = clips("drop")
    with pytest.raises(UserError, match="not a caption of the world: 'a dog barks'"):
        judge(frames, "a dog barks")
    with pytest.raises(UserError, match=r"needs uint8 frames \[T, H, W, 3\], not float32"):
        judge(frames.astype(np.float32), text)
    with pytest.raises(UserError, match="uint8 frames"):
        judge(frames[..., 0], text)
    with pytest.raises(UserError, match="at least 5 frames, not 3"):
        judge(frames[:3], text)
