from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from data.errors import StageFailed
from data.records import Clip
from data.store import Manifest, Store
from data.video import encode_mp4
from rewards import reward_version
from tasks.context import RewardRef
from tasks.score import ScoreShard, check_failures


def reward(name: str) -> RewardRef:
    return RewardRef(name, reward_version(name), None)


@pytest.fixture
def shard(store: Store, make_clip: Callable[..., Clip], frames: np.ndarray) -> Manifest:
    """Three clips: a good file, one that is no video, one that was cut short."""
    whole = encode_mp4(frames, 8)
    files = {"c1": whole, "c2": b"no video at all", "c3": whole[: len(whole) // 2]}
    media = {name: store.write_media(data, ".mp4") for name, data in files.items()}
    rows = [make_clip(name, video_path=item.path, video_sha256=item.sha256) for name, item in media.items()]
    question = {"stage": "generate", "version": 1}
    return store.commit("generate", question, {"clips": rows}, list(media.values()))


def unit(store: Store, shard: Manifest, *names: str) -> ScoreShard:
    return ScoreShard(str(store.root), shard.key, shard.digest, tuple(map(reward, names)), "clips 1-3 of 3")


def test_a_file_that_cannot_be_decoded_is_a_failed_score_never_a_number(
    store: Store, shard: Manifest
) -> None:
    asked = unit(store, shard, "sharpness", "motion")
    asked.run()
    for key, name in zip(asked.keys, ("sharpness", "motion"), strict=True):
        good, noise, cut = store.read(key, "scores")
        assert (good.clip_id, good.reward, good.status, good.error) == ("c1", name, "ok", None)
        assert good.value > 0
        assert (noise.value, noise.status) == (None, "failed")
        assert "cannot be" in noise.error
        assert (cut.value, cut.status) == (None, "failed")
        assert store.manifest(key).info == {"clips": 3, "failed": 2}
        assert json.loads(good.detail) is not None
    with pytest.raises(StageFailed, match="reward sharpness failed on 2 of 3 clips"):
        check_failures(store, "score", [asked], allowed=0.5)
    check_failures(store, "score", [asked], allowed=0.7)


def test_only_missing_rewards_are_asked(store: Store, shard: Manifest) -> None:
    unit(store, shard, "sharpness").run()
    before = {path: path.stat().st_mtime_ns for path in store.root.glob("manifests/score/*")}
    asked = unit(store, shard, "sharpness", "motion")
    asked.run()
    assert all(store.verify(key) is None for key in asked.keys)
    after = {path: path.stat().st_mtime_ns for path in store.root.glob("manifests/score/*")}
    assert before.items() <= after.items()
    assert len(after) == 2


def test_a_key_is_one_rewards_own(store: Store, shard: Manifest) -> None:
    both, one = unit(store, shard, "sharpness", "motion"), unit(store, shard, "motion")
    assert one.keys[0] in both.keys
    assert len(set(both.keys)) == 2
