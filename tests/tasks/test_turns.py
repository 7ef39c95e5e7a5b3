"""Rewards that need something there is one of: the GPU, and room for one judge's server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from data.records import Clip
from data.store import Manifest, Store
from data.video import encode_mp4
from rewards import Judgement, LoadedClip, Part, PartScores, RewardRef, reward_kinds, reward_settings
from rewards.kind import NetworkSettings
from tasks.context import RESIDENTS
from tasks.score import ScoreShard, in_turns

NETWORKS = [kind.name for kind in reward_kinds().values() if issubclass(kind.settings, NetworkSettings)]


@dataclass
class Watched:
    """What became of the rewards that a test built: a stand-in, because no network is the point here."""

    loaded: list[str] = field(default_factory=list)
    alive: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    most_alive: int = 0
    at_work: int = 0
    most_at_work: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def build(self, kind: str, settings: Any) -> Any:
        name = f"{kind} {getattr(settings, 'model', '')}".strip()
        with self.lock:
            self.loaded.append(name)
            self.alive.append(name)
            self.most_alive = max(self.most_alive, len(self.alive))
        return Judge(self, name, version_of(settings))


@dataclass
class Judge:
    watched: Watched
    name: str
    version: str
    prompt_version: str = ""

    def score(self, clips: Sequence[LoadedClip]) -> list[Judgement]:
        with self.watched.lock:
            self.watched.asked.append(self.name)
            self.watched.at_work += 1
            self.watched.most_at_work = max(self.watched.most_at_work, self.watched.at_work)
        time.sleep(0.05)
        with self.watched.lock:
            self.watched.at_work -= 1
        return [Judgement(0.5) for _ in clips]

    def score_parts(self, wanted: Mapping[str, Sequence[LoadedClip]]) -> PartScores:
        return PartScores(
            {
                name: {one.clip_id: judged for one, judged in zip(clips, self.score(clips), strict=True)}
                for name, clips in wanted.items()
            }
        )

    def close(self) -> None:
        self.watched.alive.remove(self.name)


def version_of(settings: Any) -> str:
    return f"v {getattr(settings, 'model', '')}"


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    found = Watched()
    monkeypatch.setattr("tasks.score.build_reward", found.build)
    monkeypatch.setattr("rewards.kind.RewardKind.network_told", lambda *_: None)  # there is none
    monkeypatch.delenv("VIDLOOP_JUDGE_URL", raising=False)
    RESIDENTS.release()
    yield found
    RESIDENTS.release()


@pytest.fixture
def shards(store: Store, make_clip: Callable[..., Clip], frames: np.ndarray) -> list[Manifest]:
    """Four shards of one clip each."""
    file = store.write_media(encode_mp4(frames, 8), ".mp4")
    return [
        store.commit(
            "generate",
            {"stage": "generate", "version": 1, "shard": name},
            {"clips": [make_clip(name, video_path=file.path, video_sha256=file.sha256)]},
            [file],
        )
        for name in ("c1", "c2", "c3", "c4")
    ]


def units(store: Store, shards: list[Manifest], *rewards: RewardRef) -> list[ScoreShard]:
    return [ScoreShard(str(store.root), one.key, one.digest, rewards, one.key[:4]) for one in shards]


def judge(name: str, **settings: Any) -> RewardRef:
    asked: Any = reward_settings("judge", settings)
    return RewardRef(name, version_of(asked), asked, (Part("judge/task", f"v {name}"),), "judge")


def test_the_rewards_with_networks_are_these() -> None:
    assert NETWORKS == ["clip", "flow", "hpsv2", "judge", "pickscore", "videoscore"]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_loaded_once_and_two_workers_take_turns_with_it(
    name: str, store: Store, shards: list[Manifest], watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data.device.resolve_device", lambda device: "cuda:0")
    if name == "judge":
        reward = judge("judge", backend="local", model="m")
    else:
        settings = reward_settings(name)
        reward = RewardRef(name, version_of(settings), settings)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda unit: unit.run(), units(store, shards, reward)))
    assert len(watched.asked) == 4
    assert len(watched.loaded) == 1
    assert watched.most_at_work == 1


def test_servers_of_two_judges_run_one_after_the_other(
    store: Store, shards: list[Manifest], watched: Watched
) -> None:
    teacher, examiner = judge("teacher", model="a"), judge("examiner", model="b")
    sharpness = RewardRef("sharpness", version_of(None), reward_settings("sharpness"))
    asked = units(store, shards, teacher, sharpness, examiner)
    phases = list(in_turns(asked, more=False))
    assert [phase.more for phase in phases] == [True, False]
    keys = [{key for unit in phase.units for key in unit.keys} for phase in phases]
    assert keys[0] | keys[1] == {key for unit in asked for key in unit.keys}
    for phase in phases:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda unit: unit.run(), phase.units))
    judged = [name for name in watched.asked if name.startswith("judge")]
    assert judged == ["judge a"] * 4 + ["judge b"] * 4
    servers = [name for name in watched.loaded if name.startswith("judge")]
    assert servers == ["judge a", "judge b"], "each was started once"
    assert "judge a" not in watched.alive
    assert "judge b" in watched.alive


def test_judges_at_an_address_or_in_process_need_no_turns(store: Store, shards: list[Manifest]) -> None:
    for settings in ({"url": "http://127.0.0.1:9/v1"}, {"backend": "local"}):
        both = (judge("teacher", model="a", **settings), judge("examiner", model="b", **settings))
        (phase,) = in_turns(units(store, shards, *both), more=True)
        assert phase.more
        assert [unit.rewards for unit in phase.units] == [both] * 4
