from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from rewards.base import CannotJudge, LoadedClip
from rewards.judge.frames import media_parts, segments
from rewards.judge.rubric import Frames

Clips = Callable[..., list[LoadedClip]]


def test_frames_are_spread_over_the_clip(clips: Clips) -> None:
    (one,) = segments(clips(1, frames=17)[0], Frames(count=5))
    assert one.indices == (0, 4, 8, 12, 16)
    assert one.frames.shape == (5, 32, 32, 3)


def test_a_short_clip_shows_frames_twice_and_keeps_their_number(clips: Clips) -> None:
    (one,) = segments(clips(1, frames=3)[0], Frames(count=5))
    assert one.indices == (0, 0, 1, 2, 2)


def test_long_clips_are_cut_into_seconds(clips: Clips) -> None:
    found = segments(clips(1, frames=35)[0], Frames(count=3, segment_seconds=1.0))
    # Eight frames a second; the last three frames are less than half a second and belong to the one before.
    assert [one.indices for one in found] == [(0, 4, 7), (8, 12, 15), (16, 20, 23), (24, 29, 34)]


def test_segments_need_a_clock(clips: Clips) -> None:
    with pytest.raises(CannotJudge, match="frame rate"):
        segments(replace(clips(1)[0], fps=None), Frames(count=3, segment_seconds=1.0))


@pytest.mark.parametrize("plain", [False, True])
def test_nothing_is_lost_on_the_way(plain: bool, clips: Clips) -> None:
    (one,) = segments(clips(1)[0], Frames(count=4))
    (part,) = media_parts(one, "video", plain)
    sent = part["video_url"]["url"].removeprefix("data:video/jpeg;base64,").split(",")
    received = [np.asarray(Image.open(io.BytesIO(base64.b64decode(file)))) for file in sent]
    assert np.array_equal(np.stack(received), one.frames)
    assert len(media_parts(one, "images", plain)) == 4


def test_media_ids_are_of_the_pixels(clips: Clips) -> None:
    first, second = (segments(clip, Frames(count=4))[0] for clip in clips(2))
    again = segments(clips(1)[0], Frames(count=4))[0]
    assert first.media_id == again.media_id != second.media_id
