"""No fault becomes a score: a server that fails in every way we know of."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from data.errors import UserError
from rewards import build_reward, reward_kind, reward_settings
from rewards.base import LoadedClip
from tests.rewards.judge.fault_server import IMPOSSIBLE, MODEL, FaultServer

Settings = Callable[..., dict[str, Any]]
Clips = Callable[..., list[LoadedClip]]

# What another try may mend, and what it says.
PASSING = {
    "429": "429",
    "500": "500",
    "503": "503",
    "hang": "Timeout",
    "cut": "not JSON",
    "nan": "log-probability of",
    "model": "'another' answers",
    "no logprobs": "no log-probabilities",
    "free text": "one token was asked for",
    "missing token": "is not in the answer",
    "lost frames": "did not look at what it was sent",
}


def after_the_self_test(
    server: FaultServer, fault: str, question: str = "physics", once: bool = False
) -> None:
    """From the first clip on, questions that begin so fail: all of them, or each the first time only."""
    seen: set[tuple[str, str]] = set()
    tested = len(server.asked)

    def faults(text: str, media: str) -> str | None:
        if not text.startswith(question) or (once and (text, media) in seen):
            return None
        seen.add((text, media))
        return fault

    assert tested, "the self-test comes first"
    server.faults = faults


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_is_a_reason_never_a_number_and_the_other_question_stands(
    fault: str, server: FaultServer, served: Settings, clips: Clips
) -> None:
    judge = build_reward("judge", served(timeout_s=0.5 if fault == "hang" else 2.0, breaker=100))
    server.hang_s = 1.0
    judge.score(clips(1))
    after_the_self_test(server, fault)
    scored = judge.score_parts({"judge/task": clips(3), "judge/physics": clips(3)})  # type: ignore[attr-defined]
    for judgement in scored.judgements["judge/physics"].values():
        assert judgement.value is None
        assert PASSING[fault] in str(judgement.error)
        assert judgement.again
    assert all(0 <= one.value <= 1 for one in scored.judgements["judge/task"].values())
    assert all(one.value is None for one in judge.score(clips(3)))
    assert scored.down is None


@pytest.mark.parametrize("fault", IMPOSSIBLE)
def test_an_answer_that_cannot_be_is_a_fault_never_a_value(
    fault: str, server: FaultServer, served: Settings, clips: Clips
) -> None:
    judge = build_reward("judge", served(breaker=100, retries=0))
    calm = judge.score(clips(2))
    after_the_self_test(server, fault)
    for judgement in judge.score_parts({"judge/physics": clips(2)}).judgements["judge/physics"].values():  # type: ignore[attr-defined]
        assert (judgement.value, judgement.again) == (None, True)
    server.faults = lambda question, media: None
    assert judge.score(clips(2)) == calm


@pytest.mark.parametrize("fault", ["429", "500", "503", "cut"])
def test_what_passes_is_asked_again_and_the_answer_is_the_same(
    fault: str, server: FaultServer, served: Settings, clips: Clips
) -> None:
    judge = build_reward("judge", served())
    calm = judge.score(clips(2))
    after_the_self_test(server, fault, once=True)
    assert judge.score(clips(2)) == calm


def test_a_refused_clip_is_quarantined_and_not_asked_again(
    server: FaultServer, served: Settings, clips: Clips
) -> None:
    judge = build_reward("judge", served())
    judge.score(clips(1))
    after_the_self_test(server, "400")
    before = len(server.asked)
    judged = judge.score_parts({"judge/physics": clips(2)}).judgements["judge/physics"]  # type: ignore[attr-defined]
    assert len(server.asked) - before == 2
    for judgement in judged.values():
        assert (judgement.value, judgement.again) == (None, False)
        assert "refuses the request with 400" in str(judgement.error)


def test_the_breaker_opens_and_the_rest_is_not_asked(
    server: FaultServer, served: Settings, clips: Clips
) -> None:
    judge = build_reward("judge", served(breaker=2, retries=0, concurrency=1))
    judge.score(clips(1))
    after_the_self_test(server, "500", question="")
    before = len(server.asked)
    scored = judge.score_parts({"judge/task": clips(20)})  # type: ignore[attr-defined]
    assert len(server.asked) - before == 2
    assert "2 questions in a row" in str(scored.down)
    assert all(one.again for one in scored.judgements["judge/task"].values())
    # Who asks later gets a new chance.
    server.faults = lambda question, media: None
    assert all(one.value is not None for one in judge.score(clips(3)))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"served_name": "large"}, "does not serve 'large' but 'tiny'"),
        ({"url": "http://127.0.0.1:9/v1"}, "does not answer"),
        ({"api_key_env": "VIDLOOP_JUDGE_KEY_NONE"}, "does not accept the key"),
    ],
)
def test_a_server_that_cannot_work_is_bad_input(
    changed: dict[str, Any], message: str, server: FaultServer, served: Settings, clips: Clips
) -> None:
    with pytest.raises(UserError, match=message):
        build_reward("judge", served(retries=0, **changed)).score(clips(1))


@pytest.mark.parametrize(
    "answer", [(503, b"busy"), (200, b"{}"), (200, b'{"version": '), (200, b'{"version": 7}'), (200, b"[]")]
)
def test_a_fault_does_not_become_what_the_server_is(
    answer: tuple[int, bytes], server: FaultServer, served: Settings, clips: Clips
) -> None:
    """What it says of itself is kept with every answer: asked for again, like everything else."""
    for said, told in ((answer, "vllm fake"), ((404, b"{}"), "vllm, version unknown")):
        server.versions = [said]
        judge = build_reward("judge", served())
        parts = judge.score_parts({"judge/task": clips(1)}).judgements  # type: ignore[attr-defined]
        assert [one.detail["judge"]["library"] for one in parts["judge/task"].values()] == [told]


@pytest.mark.parametrize(
    "fault", ["no logprobs", "free text", "lost frames", "missing token", "model", "nan", "400"]
)
def test_the_self_test_catches_a_server_that_ignores_what_it_is_asked(
    fault: str, server: FaultServer, served: Settings, clips: Clips
) -> None:
    server.faults = lambda question, media: fault
    with pytest.raises(UserError, match="does not pass the self-test"):
        build_reward("judge", served(retries=0)).score(clips(1))


def test_the_self_test_catches_a_server_that_does_not_look_at_the_frames(
    server: FaultServer, served: Settings, clips: Clips, monkeypatch: pytest.MonkeyPatch
) -> None:
    reply = FaultServer.reply
    monkeypatch.setattr(FaultServer, "reply", lambda self, body, question, media: reply(self, body, question, "blind") | {"usage": reply(self, body, question, media)["usage"]} if self.seen.setdefault("blind", self.seen[media]) else {})  # fmt: skip
    with pytest.raises(UserError, match="does not look at the frames"):
        build_reward("judge", served()).score(clips(1))


def test_frames_travel_once_a_clip(server: FaultServer, served: Settings, clips: Clips) -> None:
    judge = build_reward("judge", served())
    judge.score(clips(1))
    before, asked = server.with_data, len(server.asked)
    assert all(one.value is not None for one in judge.score(clips(5)))
    assert (server.with_data - before, len(server.asked) - asked) == (5, 10)
    # One for the self-test, one for the clip before, and one for each of these.
    assert server.batches == (7 if server.together else 0)


def test_questions_together_and_alone_are_answered_alike(
    server: FaultServer, served: Settings, clips: Clips
) -> None:
    judge = build_reward("judge", served())
    first = judge.score(clips(3))
    server.together = not server.together
    other = build_reward("judge", served())
    assert other.score(clips(3)) == first


@pytest.mark.parametrize("server", [True], indirect=True)
def test_answers_that_are_out_of_order_are_not_believed(
    server: FaultServer, served: Settings, clips: Clips
) -> None:
    judge = build_reward("judge", served())
    calm = judge.score(clips(2))
    honest = server.answer_together

    def shuffled(body: dict[str, Any]) -> tuple[int, bytes]:
        status, content = honest(body)
        reply = json.loads(content)
        return status, json.dumps(reply | {"choices": reply["choices"][::-1]}).encode()

    server.answer_together = shuffled  # type: ignore[method-assign]
    before = len(server.asked)
    assert judge.score(clips(2)) == calm
    assert len(server.asked) - before == 8, "each clip's two questions together, and then alone"


def test_a_server_that_forgot_the_frames_is_sent_them_again(
    server: FaultServer, served: Settings, clips: Clips
) -> None:
    judge = build_reward("judge", served())
    calm = judge.score(clips(2))
    forget = server.answer

    def forgetful(body: dict[str, Any]) -> tuple[int, bytes]:
        if body["messages"][1]["content"][0]["video_url"] is None:
            return 500, b"Expected a cached item"
        return forget(body)

    server.answer = forgetful  # type: ignore[method-assign]
    assert judge.score(clips(2)) == calm


def test_a_server_is_named_and_not_its_address(served: Settings, server: FaultServer, clips: Clips) -> None:
    kind, settings = reward_kind("judge"), reward_settings("judge", served())
    reward = build_reward("judge", settings)
    assert kind.network_told(reward, settings) is None
    reward.score(clips(1))
    line = kind.network_told(reward, settings)
    assert line is not None
    assert line.startswith(f"{MODEL}, vllm")
    assert line.endswith("at judge.url, which does not say how it computes")
    assert server.url not in line
    assert "127.0.0.1" not in line
