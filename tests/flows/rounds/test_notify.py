"""The webhook: what it is told, how often one tries, and that nobody reads its address."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from data.errors import UserError
from flows.rounds import notify
from flows.rounds.notify import NOTIFY_VARIABLE, check_address, tell, tell_verdict
from tasks.summary import Approval, Change, RoundSummary
from tests.tiny_nights import Webhook, webhook


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    monkeypatch.setattr(notify, "WAITS_S", (0.0, 0.0))
    with webhook() as one:
        monkeypatch.setenv(NOTIFY_VARIABLE, one.url)
        yield one


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(notify, "_say", lines.append)
    return lines


def summary(promoted: bool = True, answer: str | None = None, asked: bool = False) -> RoundSummary:
    primary = {
        "metric": "physics",
        "before": 0.25,
        "after": 0.5,
        "delta": 0.25,
        "ci_low": 0.1,
        "ci_high": 0.4,
        "n": 8,
    }
    approval = Approval(answer=answer, who=None, reason=None, answered=None) if asked else None
    return RoundSummary(
        round="r1", recipe={}, recipe_name="tiny", feedback="oracle", objective="dpo", policy_before="m0",
        policy_after="m1", primary=Change(**primary), guards={}, stages={}, verdict="Promoted: physics rose.",
        promoted=promoted, approval=approval,
    )  # fmt: skip


def test_verdicts(told: Webhook, said: list[str]) -> None:
    tell_verdict(summary())
    tell_verdict(summary(promoted=False))
    tell_verdict(summary(False, asked=True))
    tell_verdict(summary(False, "no", asked=True))
    assert told.events() == ["promoted", "kept", "waiting for approval", "kept"]
    assert told.got[0] == {
        "event": "promoted", "flow": None, "run": None, "id": None, "url": None, "round": "r1", "recipe": "tiny",
        "verdict": "Promoted: physics rose.", "primary": summary().primary.model_dump(),
    }  # fmt: skip
    assert said == []


def test_nobody_asked(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    monkeypatch.delenv(NOTIFY_VARIABLE, raising=False)
    tell_verdict(summary())
    assert said == []


@pytest.mark.parametrize(
    ("answers", "posts", "words"),
    [
        ([500], 2, None),
        ([503, 429], 3, None),
        ([500, 502, 503], 3, "HTTP 503"),
        ([404], 1, "HTTP 404"),
        ([302], 1, "HTTP 302"),  # not followed: what is posted is for one address
    ],
)
def test_it_tries_again_where_that_may_help(
    told: Webhook, said: list[str], answers: list[int], posts: int, words: str | None
) -> None:
    told.answers[:] = answers
    tell("kept", round="r1")
    assert len(told.got) == posts
    assert (words in said[0]) if words else said == []
    assert told.secret not in "".join(said)


def test_a_webhook_that_hangs_or_is_gone_holds_nobody_up(
    told: Webhook, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "TIMEOUT_S", 0.2)
    told.answers[:] = [0, 0, 0]
    tell("kept", round="r1")
    assert len(told.got) == 3
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv(NOTIFY_VARIABLE, f"http://127.0.0.1:{port}/{told.secret}")
    tell("kept", round="r1")
    assert len(said) == 2
    assert all("nobody took it" in line and told.secret not in line for line in said)


@pytest.mark.parametrize("wrong", ["hooks.example/T0ken", "ftp://x/T0ken", "http:///T0ken", "http://x/T0 ken", "http://[/T0ken"])  # fmt: skip
def test_a_wrong_address_is_refused_and_not_repeated(
    wrong: str, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    with pytest.raises(UserError) as refused:
        check_address(wrong)
    assert "T0" not in str(refused.value)
    monkeypatch.setenv(NOTIFY_VARIABLE, wrong)
    tell("kept", round="r1")
    assert len(said) == 1
    assert "T0" not in said[0]


def test_all_tries_together_take_less_than_what_is_promised() -> None:
    tries = 1 + len(notify.WAITS_S)
    assert tries * notify.TIMEOUT_S + sum(notify.WAITS_S) <= 20
