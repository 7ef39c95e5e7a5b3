"""What a judge says of prompts by their text alone stays said: for other shards, and for later runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from data.queries import run_query
from data.records import Clip, prompt_id
from data.store import Manifest, Store
from data.video import encode_mp4
from rewards import reward_ref
from tasks.context import RESIDENTS
from tasks.score import ScoreShard
from tests.rewards.judge.conftest import rubric, served, server, write_rubric  # noqa: F401  (fixtures)
from tests.rewards.judge.fault_server import TEXT_ALONE, FaultServer
from tests.tiny_vlm import tiny_vlm  # noqa: F401  (a fixture)

LAWS = [
    {"id": "support", "concerns": "fall: {prompt}?", "questions": ["down: {prompt}?"]},
    {"id": "heat", "concerns": "hot: {prompt}?", "questions": ["melts?"]},
]


@pytest.fixture(autouse=True)
def _nobody_stays() -> Any:
    yield
    RESIDENTS.release()


@pytest.fixture
def shards(store: Store, make_clip: Callable[..., Clip]) -> list[Manifest]:
    """Two shards of the same prompt."""
    rng = np.random.default_rng(0)
    found = []
    for name in ("c1", "c2"):
        frames = rng.integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)
        media = store.write_media(encode_mp4(frames, 8), ".mp4")
        row = make_clip(name, video_path=media.path, video_sha256=media.sha256)
        question = {"stage": "generate", "version": 1, "name": name}
        found.append(store.commit("generate", question, {"clips": [row]}, [media]))
    return found


@pytest.fixture
def units(
    store: Store, shards: list[Manifest], served: Callable[..., Any], write_rubric: Callable[..., str]
) -> Callable[..., list[ScoreShard]]:
    def make(laws: Any = LAWS) -> list[ScoreShard]:
        asked = write_rubric("laws.yaml", questions=[], laws=laws, combine="mean")
        judge = reward_ref("judge", "judge", served(rubric=asked))
        return [ScoreShard(str(store.root), one.key, one.digest, (judge,), "clip") for one in shards]

    return make


def about_prompts(server: FaultServer) -> list[str]:
    return [question.split(":")[0] for question, media in server.asked if media == TEXT_ALONE]


def rows(store: Store, unit: ScoreShard) -> dict[str, Any]:
    found = [row for key in unit.keys for row in store.read(key, "scores")]
    return {row.reward: (row.value, row.error, json.loads(row.detail).get("concern")) for row in found}


def test_a_prompt_is_asked_about_once_for_all_shards_and_runs(
    store: Store, units: Callable[..., list[ScoreShard]], server: FaultServer
) -> None:
    first, second = units()
    first.run()
    assert about_prompts(server) == ["fall", "hot"]
    RESIDENTS.release()  # as another run, whose judge remembers nothing
    second.run()
    assert about_prompts(server) == ["fall", "hot"]
    found = [rows(store, one) for one in (first, second)]
    for part in ("judge/support", "judge/heat"):
        assert found[0][part][2] == found[1][part][2]
        assert (found[0][part][0] is None) == (found[1][part][0] is None)
    (kept,) = store.manifests("score-prompts")
    answers = {row.reward: row for row in store.read(kept.key, "prompt_answers")}
    assert set(answers) == {"judge/support", "judge/heat"}
    (clip,) = store.read(first.clips_key, "clips")
    assert {row.prompt_id for row in answers.values()} == {prompt_id(clip.prompt)}
    assert answers["judge/heat"].value == found[0]["judge/heat"][2]["p_yes"]
    assert run_query(store, "SELECT count(*) FROM prompt_answers")[1] == [(2,)]


def test_what_stands_in_the_store_decides_whatever_the_judge_would_say_now(
    store: Store, units: Callable[..., list[ScoreShard]], server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = units()
    first.run()
    RESIDENTS.release()
    reply = FaultServer.reply

    def turned(self: FaultServer, body: dict[str, Any], question: str, media: str) -> dict[str, Any]:
        found = reply(self, body, question, media)
        if media == TEXT_ALONE:
            top = found["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
            top[0]["logprob"], top[1]["logprob"] = top[1]["logprob"], top[0]["logprob"]
        return found

    monkeypatch.setattr(FaultServer, "reply", turned)
    second.run()
    for part in ("judge/support", "judge/heat"):
        assert (rows(store, first)[part][0] is None) == (rows(store, second)[part][0] is None)


def test_a_reworded_law_is_asked_about_anew_and_silence_is_not_kept(
    store: Store, units: Callable[..., list[ScoreShard]], server: FaultServer
) -> None:
    units()[0].run()
    other = [LAWS[0], LAWS[1] | {"concerns": "melting: {prompt}?"}]
    server.faults = lambda question, media: "nan" if question.startswith("melting") else None
    RESIDENTS.release()
    units(other)[0].run()
    assert len(store.manifests("score-prompts")) == 1
    server.faults = lambda question, media: None
    units(other)[1].run()
    assert len(store.manifests("score-prompts")) == 2


def test_where_a_prompts_file_says_it_nothing_is_asked_or_kept(
    store: Store, shards: list[Manifest], served: Any, write_rubric: Any, server: FaultServer, tmp_path: Any
) -> None:
    (clip,) = store.read(shards[0].key, "clips")
    said = tmp_path / "said.jsonl"
    said.write_text(json.dumps({"text": clip.prompt, "laws": ["heat"]}))
    asked = write_rubric("laws.yaml", questions=[], laws=LAWS, combine="mean")
    judge = reward_ref("judge", "judge", served(rubric=asked, laws=[str(said)]))
    unit = ScoreShard(str(store.root), shards[0].key, shards[0].digest, (judge,), "clip")
    unit.run()
    assert (about_prompts(server), store.manifests("score-prompts")) == ([], [])
    found = rows(store, unit)
    assert found["judge/heat"][2] == {"by": "prompts file"}
    assert found["judge"][0] == found["judge/heat"][0] is not None
    assert found["judge/support"][:2] == (None, "not asked: law support does not concern the prompt")
