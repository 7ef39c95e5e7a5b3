"""Which clips are shown, and that a report of large clips stays small."""

import base64

import numpy as np
import pytest

from data.store import Store
from data.video import VideoSettings, decode_mp4, encode_mp4
from flows.reporting.facts import ClipGroup, PairedClip, Seen
from flows.reporting.paired_clips import choose, group_clips, pack
from tests.video_header import probe


def mover(n: int, category: str, before: float = 0.0, after: float = 1.0, path: str = "") -> PairedClip:
    sides = Seen(f"before{n}", path, before), Seen(f"after{n}", path, after)
    return PairedClip(f"prompt {n}", category, n, *sides)


def test_every_category_is_shown_before_one_is_shown_twice() -> None:
    held = [mover(n, "many") for n in range(50)] + [mover(100, "few"), mover(101, "rare")]
    shown = choose(held, 4)
    assert sorted(m.category for m in shown) == ["few", "many", "many", "rare"]


def test_the_choice_depends_on_the_clips_alone_and_not_on_their_order() -> None:
    held = [mover(n, "abc"[n % 3]) for n in range(60)]
    assert choose(held, 6) == choose(held[::-1], 6)
    assert {m.seed for m in choose(held, 6)} != {m.seed for m in held[:6]}


def test_binary_metrics_give_fixed_broken_and_failing() -> None:
    held = [
        mover(0, "a", 0, 1),
        mover(1, "a", 1, 0),
        mover(2, "a", 0, 0),
        mover(3, "a", 1, 1),
        mover(4, "b", 0, 1),
    ]
    found = {group.name: group.total for group in group_clips(held)}
    assert found == {"Fixed": 2, "Broken": 1, "Still failing": 1, "Still right": 1}


def test_graded_metrics_give_higher_and_lower() -> None:
    held = [mover(0, "a", 0.2, 0.3), mover(1, "a", 0.3, 0.1), mover(2, "a", 0.5, 0.9)]
    assert {group.name: group.total for group in group_clips(held)} == {"Higher": 2, "Lower": 1}


@pytest.fixture
def large(store: Store) -> str:
    """Path of a clip of 480x832, whose noise no codec can shrink."""
    frames = np.random.default_rng(0).integers(0, 256, (9, 480, 832, 3), dtype=np.uint8)
    return store.write_media(encode_mp4(frames, 16, VideoSettings(crf=20)), "mp4").path


def test_large_clips_are_reduced_and_keep_their_aspect(store: Store, large: str) -> None:
    ((before, _),) = pack(store, [ClipGroup("Fixed", "", 1, (mover(0, "a", path=large),))]).values()
    video = base64.b64decode(before.video)
    assert (before.width, before.height) == (256, 148)
    assert (probe(video).codec, probe(video).pix_fmt) == ("h264", "yuv420p")
    frames, fps = decode_mp4(video)
    assert (frames.shape, fps) == ((9, 148, 256, 3), 16.0)


def test_the_media_budget_is_kept_by_showing_fewer_cards_of_every_group(store: Store, large: str) -> None:
    groups = [
        ClipGroup(name, "", 6, tuple(mover(n, name, path=large) for n in range(6))) for name in ("One", "Two")
    ]
    (one,) = pack(store, [ClipGroup("One", "", 1, groups[0].shown[:1])]).values()
    card = sum(len(side.video) + len(side.strip) for side in one)
    packed = pack(store, groups, budget=5 * card)
    assert [sum(pair in packed for pair in group.shown) for group in groups] == [3, 2]
