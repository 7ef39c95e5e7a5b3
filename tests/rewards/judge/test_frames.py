from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from rewards.base import CannotJudge, LoadedClip
from rewards.judge.frames import Timing, media_parts, segments
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


def test_a_segment_says_its_seconds_where_the_clip_was_cut_by_them(clips: Clips) -> None:
    found = segments(clips(1, frames=17)[0], Frames(count=3, media="images", segment_seconds=1.0))
    assert [one.seconds for one in found] == [(0.0, 1.0), (1.0, 2.125)]
    (whole,) = segments(clips(1, frames=17)[0], Frames(count=3))
    assert whole.seconds is None


def test_videos_and_segments_need_a_clock_and_pictures_none(clips: Clips) -> None:
    timeless = replace(clips(1)[0], fps=None)
    for spec in (Frames(count=3), Frames(count=3, media="images", segment_seconds=1.0)):
        with pytest.raises(CannotJudge, match="frame rate"):
            segments(timeless, spec)
    (one,) = segments(timeless, Frames(count=3, media="images"))
    assert one.timing is None


def test_a_segment_tells_when_its_frames_are_counted_from_its_own_first(clips: Clips) -> None:
    second = segments(clips(1, frames=35)[0], Frames(count=3, segment_seconds=1.0))[1]
    assert second.timing == Timing(fps=8.0, indices=(0, 4, 7), length=8)
    (short,) = segments(clips(1, frames=2)[0], Frames(count=4))
    assert short.timing == Timing(fps=8.0, indices=(0, 0, 1, 1), length=4)


@pytest.mark.parametrize("plain", [False, True])
def test_nothing_is_lost_on_the_way(plain: bool, clips: Clips) -> None:
    (one,) = segments(clips(1)[0], Frames(count=4))
    (part,) = media_parts(one, "video", plain)
    sent = part["video_url"]["url"].removeprefix("data:video/jpeg;base64,").split(",")
    received = [np.asarray(Image.open(io.BytesIO(base64.b64decode(file)))) for file in sent]
    assert np.array_equal(np.stack(received), one.frames)
    assert len(media_parts(one, "images", plain)) == 4


def test_media_ids_are_of_the_pixels_and_their_times(clips: Clips) -> None:
    first, second = (segments(clip, Frames(count=4))[0] for clip in clips(2))
    again = segments(clips(1)[0], Frames(count=4))[0]
    assert first.media_id == again.media_id != second.media_id
    slower = segments(replace(clips(1)[0], fps=4.0), Frames(count=4))[0]
    assert slower.media_id != first.media_id
