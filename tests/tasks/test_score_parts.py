"""A judge's questions in the store: only what is missing is asked, and no fault is kept as an answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from data.errors import StageFailed
from data.records import Clip
from data.store import Manifest, Store
from data.video import encode_mp4
from rewards import reward_ref
from tasks.context import RESIDENTS
from tasks.release import release
from tasks.score import JudgeDown, ScoreShard, check_failures, lent, release_unanswered
from tasks.shard_clips import ShardClips
from tests.rewards.judge.conftest import RUBRIC, rubric, served, server, write_rubric  # noqa: F401  (fixtures)
from tests.rewards.judge.fault_server import FaultServer, nothing
from tests.tiny_vlm import tiny_vlm  # noqa: F401  (a fixture)

Make = Callable[..., Any]
CLIPS = ("c1", "c2", "c3", "c4")


@pytest.fixture(autouse=True)
def _nobody_stays() -> Any:
    yield
    RESIDENTS.release()


@pytest.fixture
def shard(store: Store, make_clip: Callable[..., Clip]) -> Manifest:
    rng = np.random.default_rng(0)
    media = {
        name: store.write_media(encode_mp4(rng.integers(0, 256, (9, 32, 32, 3), dtype=np.uint8), 8), ".mp4")
        for name in CLIPS
    }
    rows = [make_clip(name, video_path=item.path, video_sha256=item.sha256) for name, item in media.items()]
    return store.commit(
        "generate", {"stage": "generate", "version": 1}, {"clips": rows}, list(media.values())
    )


@pytest.fixture
def unit(store: Store, shard: Manifest, served: Make) -> Callable[..., ScoreShard]:
    """The score unit of the shard by a judge that asks the fault server."""

    def make(**changed: Any) -> ScoreShard:
        judge = reward_ref("judge", "judge", served(**changed))
        return ScoreShard(str(store.root), shard.key, shard.digest, (judge,), "clips 1-4 of 4")

    return make


def asked_by(server: FaultServer, unit: ScoreShard) -> list[str]:
    """First words of the questions that a run of `unit` puts; those of a self-test of its own left out."""
    before = len(server.asked)
    unit.run()
    return sorted(question.split(":")[0] for question, _ in server.asked[before:])


def values(store: Store, unit: ScoreShard) -> dict[str, list[float | None]]:
    names = [part.name for part in unit.rewards[0].parts] + ["judge"]
    return {
        name: [row.value for row in store.read(key, "scores")]
        for name, key in zip(names, unit.keys, strict=True)
    }


def warm(server: FaultServer, unit: ScoreShard) -> None:
    """Have the self-test behind us: borrow the judge once, on one clip."""
    with lent(unit.rewards[0]) as judge:
        judge.score(ShardClips(Store.open(unit.root), unit.clips_key).loaded[:1])


def test_every_question_has_rows_of_its_own_and_the_judge_combines_them(
    store: Store,
    unit: Make,
    server: FaultServer,
) -> None:
    one = unit()
    one.run()
    found = values(store, one)
    assert set(found) == {"judge/task", "judge/physics", "judge"}
    assert found["judge"] == [
        min(pair) for pair in zip(found["judge/task"], found["judge/physics"], strict=True)
    ]
    assert all(store.verify(key) is None for key in one.keys)


def test_one_more_question_asks_that_question_alone(
    store: Store,
    unit: Make,
    server: FaultServer,
    write_rubric: Make,
) -> None:
    first = unit()
    first.run()
    more = write_rubric(
        "more.yaml", questions=[*RUBRIC["questions"], {"id": "more", "text": "objects: {prompt}?"}]
    )
    second = unit(rubric=more)
    warm(server, second)
    assert asked_by(server, second) == ["objects"] * 4
    assert set(first.keys[:2]) <= set(second.keys)
    assert len(values(store, second)["judge/more"]) == 4


def test_a_reworded_question_is_asked_again_and_a_new_threshold_asks_nothing(
    store: Store,
    unit: Make,
    server: FaultServer,
    write_rubric: Make,
) -> None:
    unit().run()
    stricter = unit(rubric=write_rubric("stricter.yaml", threshold=0.9, combine="mean"))
    before = len(server.asked)
    stricter.run()
    assert len(server.asked) == before
    assert store.verify(stricter.keys[-1]) is None
    task, physics = RUBRIC["questions"]
    reworded = unit(
        rubric=write_rubric("reworded.yaml", questions=[{**task, "text": "really: {prompt}?"}, physics])
    )
    warm(server, reworded)
    assert asked_by(server, reworded) == ["really"] * 4


@pytest.mark.parametrize("fault", ["429", "500", "hang", "cut", "nan", "no logprobs", "free text", "model"])
def test_after_an_outage_only_what_is_missing_is_asked(
    fault: str,
    store: Store,
    unit: Make,
    server: FaultServer,
) -> None:
    calm = unit()
    calm.run()
    expected = values(store, calm)
    for key in calm.keys:
        store.discard(key)

    server.hang_s = 1.0
    one = unit(retries=0, breaker=2, concurrency=1, timeout_s=0.5)
    warm(server, one)
    served_medias: list[str] = []

    def after_one_clip(question: str, media: str) -> str | None:
        if media not in served_medias and len(served_medias) < 1:
            served_medias.append(media)
        return None if media in served_medias else fault

    server.faults = after_one_clip
    with pytest.raises(JudgeDown, match="2 questions in a row"):
        one.run()
    # Nothing that failed is in the store, and what was answered is.
    assert not any(store.verify(key) is None for key in one.keys)
    assert len(store.manifests("score-unfinished")) == 2

    server.faults = nothing
    assert asked_by(server, one) == ["physics"] * 3 + ["task"] * 3
    assert values(store, one) == expected
    assert store.manifests("score-unfinished") == []


@pytest.mark.parametrize("folder", ["manifests", "parts"])
def test_unfinished_answers_that_are_damaged_are_asked_for_again(
    folder: str, store: Store, unit: Make, server: FaultServer
) -> None:
    one = unit(retries=0, breaker=2, concurrency=1, timeout_s=5)
    warm(server, one)
    served: list[str] = []

    def after_one_clip(question: str, media: str) -> str | None:
        served.extend([media] if not served else [])
        return None if media in served else "500"

    server.faults = after_one_clip
    with pytest.raises(JudgeDown):
        one.run()
    harmed = [path for path in (store.root / folder / "score-unfinished").rglob("*.*") if path.is_file()]
    assert len(harmed) == 2
    for path in harmed:
        path.write_bytes(path.read_bytes().replace(b"judge", b"jadge"))
    server.faults = nothing
    assert asked_by(server, one) == ["physics"] * 4 + ["task"] * 4
    assert None not in values(store, one)["judge"]
    assert store.manifests("score-unfinished") == []


def test_of_a_judge_only_what_is_disbelieved_is_asked_again(
    store: Store, unit: Make, server: FaultServer
) -> None:
    one = unit(retries=0, breaker=100)
    warm(server, one)
    lost: list[str] = []

    def one_clip(question: str, media: str) -> str | None:
        if not lost:
            lost.append(media)
        return "free text" if media in lost and question.startswith("task") else None

    server.faults = one_clip
    one.run()
    before = values(store, one)
    (place,) = [place for place, value in enumerate(before["judge"]) if value is None]
    reward = one.rewards[0]
    assert release(store, reward, where="value > 1").units == ()

    found = release(store, reward, failed=True)
    assert found.clips == 1
    assert store.manifest(one.keys[-1]) is None
    server.faults = nothing
    assert len(asked_by(server, one)) == 1  # the question that had no answer; its other one is kept
    after = values(store, one)
    assert None not in after["judge"]
    for name, some in before.items():
        assert [value for value in after[name] if value != after[name][place]] == [
            value for value in some if value is not None and value != after[name][place]
        ]

    everything = release(store, reward)
    assert everything.clips == 4
    assert len(asked_by(server, one)) == 8
    assert values(store, one) == after


def test_a_few_unanswered_clips_are_null_and_too_many_are_asked_again(
    store: Store,
    unit: Make,
    server: FaultServer,
) -> None:
    one = unit(retries=0, breaker=100)
    warm(server, one)
    lost: list[str] = []

    def one_clip(question: str, media: str) -> str | None:
        if not lost:
            lost.append(media)
        return "nan" if media in lost else None

    server.faults = one_clip
    one.run()
    assert sum(value is None for value in values(store, one)["judge"]) == 1
    manifest = store.manifest(one.keys[-1])
    assert manifest is not None
    assert manifest.info == {"clips": 4, "failed": 1, "again": 1}

    # The round can live with it: it stays as it is, also the next time.
    check_failures(store, "score", [one], allowed=0.25)
    release_unanswered(store, [one], allowed=0.25)
    assert all(store.verify(key) is None for key in one.keys)

    # It cannot: it stops, and the next run asks about the one clip.
    with pytest.raises(StageFailed, match="failed on 1 of 4 clips"):
        check_failures(store, "score", [one], allowed=0.1)
    release_unanswered(store, [one], allowed=0.1)
    server.faults = nothing
    assert asked_by(server, one) == ["physics", "task"]
    assert all(value is not None for value in values(store, one)["judge"])
    assert store.manifests("score-unfinished") == []


def test_a_refused_clip_stays_refused(store: Store, unit: Make, server: FaultServer) -> None:
    one = unit(retries=0)
    warm(server, one)
    first: list[str] = []
    server.faults = lambda question, media: (
        "400" if media in (first or first.append(media) or first) else None
    )
    one.run()
    manifest = store.manifest(one.keys[-1])
    assert manifest is not None
    assert manifest.info == {"clips": 4, "failed": 1}
    release_unanswered(store, [one], allowed=0.0)
    assert all(store.verify(key) is None for key in one.keys)


def test_a_file_that_cannot_be_decoded_fails_every_question(
    store: Store,
    make_clip: Callable[..., Clip],
    unit: Make,
    shard: Manifest,
    server: FaultServer,
) -> None:
    noise = store.write_media(b"no video at all", ".mp4")
    rows = [make_clip("bad", video_path=noise.path, video_sha256=noise.sha256)]
    broken = store.commit(
        "generate", {"stage": "generate", "version": 1, "broken": True}, {"clips": rows}, [noise]
    )
    one = ScoreShard(str(store.root), broken.key, broken.digest, unit().rewards, "a clip")
    one.run()
    assert values(store, one) == {"judge/task": [None], "judge/physics": [None], "judge": [None]}
    assert server.asked == []


def test_a_mixture_is_combined_again_when_its_judge_is_asked_again(
    store: Store,
    unit: Make,
    server: FaultServer,
) -> None:
    judge = unit(retries=0, breaker=100).rewards[0]
    components = {"judge": {"worst": 0.0, "best": 1.0}}
    mixture = reward_ref("composite", "composite", {"components": components}, lambda name: judge)
    one = replace(unit(), rewards=(judge, mixture))
    assert len(set(one.keys)) == len(one.keys) == 4
    warm(server, one)
    lost: list[str] = []

    def one_clip(question: str, media: str) -> str | None:
        if not lost:
            lost.append(media)
        return "nan" if media in lost else None

    server.faults = one_clip
    one.run()
    mixed = [row.value for row in store.read(one.key_of(mixture), "scores")]
    assert mixed == [row.value for row in store.read(one.key_of(judge), "scores")]
    assert mixed.count(None) == 1

    release_unanswered(store, [one], allowed=0.1)
    server.faults = nothing
    asked = len(server.asked)
    one.run()
    assert len(server.asked) == asked + 2
    mixed = [row.value for row in store.read(one.key_of(mixture), "scores")]
    assert None not in mixed
    assert mixed == [row.value for row in store.read(one.key_of(judge), "scores")]
