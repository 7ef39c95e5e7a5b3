"""The key of a judge's server reaches the server, and no message, file or log."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from data.errors import UserError
from rewards import build_reward
from rewards.base import LoadedClip
from rewards.judge.answers import Unanswered
from rewards.judge.transport import Http
from tests.hostile_servers import serving
from tests.rewards.judge.fault_server import KEY, FaultServer

Settings = Callable[..., dict[str, Any]]
Clips = Callable[..., list[LoadedClip]]
SECRET = "VERYSECRET"


def everything(raised: pytest.ExceptionInfo[BaseException], caplog: pytest.LogCaptureFixture) -> str:
    return "".join(traceback.format_exception(raised.value)) + str(raised.value) + caplog.text


@pytest.mark.parametrize("around", ["{}\n", "{}\r\n", " {}\t\n", "\n{}"])
def test_what_stands_around_a_key_is_not_of_it(
    around: str, server: FaultServer, served: Settings, clips: Clips, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDLOOP_JUDGE_KEY", around.format(KEY))
    assert all(one.value is not None for one in build_reward("judge", served()).score(clips(1)))


@pytest.mark.parametrize("inside", ["\n", "\r", "\t", "\x7f", "\x1b", "é", "–", "🔑"])
def test_a_key_that_no_header_can_hold_is_refused_in_words(
    inside: str,
    served: Settings,
    clips: Clips,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("VIDLOOP_JUDGE_KEY", f"sk-{SECRET}{inside}{SECRET}")
    with pytest.raises(UserError, match="the key in VIDLOOP_JUDGE_KEY holds a character") as raised:
        build_reward("judge", served()).score(clips(1))
    assert SECRET not in everything(raised, caplog)


def answering(said: bytes) -> AbstractContextManager[str]:
    """A server that says this, whatever it is asked, and hangs up."""
    return serving(lambda connection: connection.sendall(said))


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 401 no\r\ncontent-length: 40\r\n\r\nwrong key provided: sk-VERYSECRET, go away",
        b"HTTP/1.1 400 no\r\ncontent-length: 21\r\n\r\nBearer sk-VERYSECRET?",
        b"HTTP/1.1 500 no\r\ncontent-length: 613\r\n\r\n" + b"x" * 593 + b"Bearer sk-VERYSECRET",
        b"HTTP/1.1 200 ok\r\ncontent-length: 20\r\n\r\nBearer sk-VERYSECRET",
        b"HTTP/1.1 200 ok\r\nAuthorization Bearer sk-VERYSECRET\r\n\r\n",
        b"Authorization: Bearer sk-VERYSECRET\r\n\r\n",
    ],
)
def test_what_a_server_says_of_the_key_is_not_repeated(said: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with answering(said) as url:
        client = Http(url, f"sk-{SECRET}", 5.0, 0, 1)
        with pytest.raises((Unanswered, UserError)) as raised:
            client.post("/chat/completions", {})
        client.close()
    assert SECRET not in everything(raised, caplog)


@pytest.mark.parametrize("key", [f"sk-{SECRET}\n{SECRET}", f"sk-{SECRET}\r", f"sk-{SECRET}\x00"])
def test_what_the_library_says_of_a_header_is_not_repeated(
    key: str, caplog: pytest.LogCaptureFixture
) -> None:
    with answering(b"") as url:
        client = Http(url, key, 5.0, 0, 1)
        with pytest.raises(Unanswered, match="no HTTP") as raised:
            client.post("/chat/completions", {})
        client.close()
    assert SECRET not in everything(raised, caplog)
