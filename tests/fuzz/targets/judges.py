"""A judge's answers, as a server on this machine sends them: the JSON of a reply, and all that HTTP allows."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from functools import cache

import numpy as np

from data.errors import VidloopError
from data.resources import shipped
from rewards.judge.answers import Ask, Unanswered, words_of
from rewards.judge.asking import Requests
from rewards.judge.frames import Segment
from rewards.judge.rubric import Rubric, load_rubric
from rewards.judge.settings import JudgeSettings
from rewards.judge.transport import Http
from tests.fuzz.target import Target

_TOKENS = {"yes": 1, " yes": 2, "Yes": 3, "no": 4, " no": 5, "No": 6}


class _Server:
    """Answers each request with the bytes in `reply`, and ends the connection."""

    def __init__(self) -> None:
        self.reply = b""
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            with connection:
                try:
                    request = b""
                    while b"\r\n\r\n" not in request:
                        request += connection.recv(1 << 16)
                    head, _, body = request.partition(b"\r\n\r\n")
                    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
                    while len(body) < length:
                        body += connection.recv(1 << 16)
                    said = self.reply
                    if b"/tokenize" in head.split(b"\r\n")[0]:
                        token = _TOKENS.get(json.loads(body)["prompt"])
                        said = _http(json.dumps({"tokens": [token] if token else [7, 8]}).encode())
                    connection.sendall(said)
                except OSError:
                    pass  # the client has what it wanted, or does not want more


@cache
def _server() -> _Server:
    return _Server()


@cache
def _asking(api: str) -> tuple[Requests, Ask]:
    rubric: Rubric = load_rubric(str(shipped("rubrics")["general.yaml"]))
    settings = JudgeSettings(model="fuzz", api=api, served_name="fuzz")
    http = Http(f"http://127.0.0.1:{_server().port}/v1", "key", 5.0, 0, 1)
    segment = Segment((0,), np.zeros((1, 16, 16, 3), np.uint8), None)
    return Requests(http, settings, rubric, None), Ask(segment, "is it?", words_of(rubric))


def _http(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body)


def _answer(data: bytes) -> None:
    _ask(_http(data))


def _ask(reply: bytes) -> None:
    _server().reply = reply
    requests, ask = _asking("vllm" if len(reply) % 2 else "openai")  # one of the two, by chance
    probability, tokens = requests.ask(ask, False)
    assert 0.0 <= probability.value <= 1.0
    assert 0.0 < probability.mass <= 1.0
    assert type(tokens) is int


def _answers() -> Iterator[bytes]:
    for names in (_TOKENS, [f"token_id:{token}" for token in _TOKENS.values()]):
        top = [{"token": name, "logprob": -2.0 - place} for place, name in enumerate(names)]
        choice = {
            "index": 0,
            "logprobs": {"content": [{"token": "Yes", "logprob": -0.1, "top_logprobs": top}]},
        }
        usage = {"prompt_tokens": 12, "completion_tokens": 1}
        yield json.dumps({"model": "fuzz", "choices": [choice], "usage": usage}).encode()


def _replies() -> Iterator[bytes]:
    for body in _answers():
        yield _http(body)
    yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    yield b"HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n"
    yield b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nConnection: close\r\n\r\n"


_SAID = ("choices", "index", "logprobs", "content", "top_logprobs", "token", "logprob", "usage", "prompt_tokens",
         "completion_tokens", "-0.5", "1e999", "NaN", "Infinity", "null", "false", "[[[[", '{"a":')  # fmt: skip
_HTTP = ("HTTP/1.1 ", "200 OK", "400", "401", "404", "413", "429", "500", "\r\n", "\r\n\r\n", "Content-Length: ",
         "Transfer-Encoding: chunked", "Content-Encoding: ", "gzip", "deflate", "br", "zstd", "Retry-After: ", "inf",
         "Location: ", "Connection: close", "Set-Cookie: ", "Content-Type: text/html; charset=")  # fmt: skip
TARGETS = (
    Target(
        "judge-answer",
        _answer,
        _answers,
        refusals=(Unanswered, VidloopError),
        words=_SAID,
        trees=True,
        share=0,
    ),
    Target(
        "judge-reply", _ask, _replies, refusals=(Unanswered, VidloopError), words=(*_SAID, *_HTTP), share=0
    ),
)
