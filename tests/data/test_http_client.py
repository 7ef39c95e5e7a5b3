"""One deadline for an exchange, whatever a server's bytes do; and everybody who asks by HTTP keeps it."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from data import http_client
from data.http_client import HttpClient, NoHttp, answers, exchange
from flows.rounds import notify
from flows.serving.api_client import Refused, ask
from rewards.judge.answers import Fault
from rewards.judge.transport import Http
from tests.hostile_servers import HOSTILE, json_answer, serving

TIMEOUT_S = 0.8
# Two cores that many share; without a deadline the servers go on for a minute.
SLACK_S = 5.0


@contextmanager
def in_time() -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < TIMEOUT_S + SLACK_S


def asked(url: str, body: bytes | None = b"{}") -> http_client.Answer:
    client = HttpClient()
    try:
        return client.exchange("POST", f"{url}/", TIMEOUT_S, body)
    finally:
        client.close()


@pytest.mark.parametrize("name", HOSTILE)
def test_the_deadline_covers_whatever_the_bytes_do(name: str) -> None:
    behaviour, lasts = HOSTILE[name]
    with serving(behaviour) as url, in_time(), pytest.raises(TimeoutError if lasts else (OSError, NoHttp)):
        asked(url)


@pytest.mark.parametrize("name", HOSTILE)
def test_for_a_judge_it_is_a_fault_of_the_server(name: str) -> None:
    with serving(HOSTILE[name][0]) as url, in_time():
        client = Http(f"{url}/v1", "", TIMEOUT_S, 0, 1)
        with pytest.raises(Fault) as fault:
            client.post("/chat/completions", {})
        client.close()
    assert len(str(fault.value)) < 500


DRIPS = ("headers, a byte now and then", "102 for ever", "body, a byte now and then")


@pytest.mark.parametrize("name", DRIPS)
def test_so_it_is_for_webhooks_prefects_server_and_servers_of_our_own(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(notify, "TIMEOUT_S", TIMEOUT_S)
    monkeypatch.setattr(notify, "WAITS_S", ())
    monkeypatch.setattr(notify, "_say", said.append)
    with serving(HOSTILE[name][0]) as url:
        monkeypatch.setenv(notify.NOTIFY_VARIABLE, url)
        with in_time():
            notify.tell("kept", round="r1")
        with in_time(), pytest.raises(TimeoutError):
            ask(url, "/api", timeout_s=TIMEOUT_S)
        with in_time():
            assert not answers(int(url.rpartition(":")[2]), "/health", TIMEOUT_S)
    assert said == ["notification: nobody took it (TimeoutError); the round does not depend on it"]


def test_a_server_that_reads_slowly_or_not_at_all_is_given_up() -> None:
    def slowly(connection: socket.socket) -> None:
        while connection.recv(8192):
            time.sleep(0.05)

    for behaviour in (slowly, HOSTILE["nothing"][0]):
        with serving(behaviour, reads=False) as url, in_time(), pytest.raises(TimeoutError):
            asked(url, b" " * (64 << 20))


@pytest.mark.parametrize("name", ["nothing", "headers, a byte now and then"])
def test_a_slow_tls_hello_is_given_up(name: str) -> None:
    with serving(HOSTILE[name][0]) as url, in_time(), pytest.raises(OSError):  # noqa: PT011
        asked(url.replace("http://", "https://"))


def test_a_tls_hello_that_drips_is_given_up() -> None:
    """The header of a TLS record of 16 kB, and then its bytes one by one."""

    def dripping(connection: socket.socket) -> None:
        connection.sendall(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc")
        while True:
            connection.sendall(b"\x00")
            time.sleep(0.1)

    with serving(dripping) as url, in_time(), pytest.raises(TimeoutError):
        asked(url.replace("http://", "https://"))


def test_all_addresses_of_a_host_share_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener that accepts nothing more stands for hosts that do not answer."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        one_address = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
        found = [one_address] * 20
        real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", lambda host, *a, **b: found if host == "many.invalid" else real(host, *a, **b))  # fmt: skip
        with in_time(), pytest.raises(TimeoutError):
            asked(f"http://many.invalid:{port}")
        for one in waiting:
            one.close()


DEEP = b'{"choices": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (DEEP, "too many parts inside one another"),
        (b'{"a":' * 100_000, "too many parts inside one another"),
        (b'{"choices": 1' + b"0" * 100_000 + b"}", "a number of too many digits"),
        (b"not at all", "not JSON"),
        (b'"\xff\xfe\x00', "not JSON"),
        (b"[1]", "not an object"),
    ],
)
def test_json_that_cannot_be_is_a_fault(body: bytes, words: str) -> None:
    with serving(lambda connection: connection.sendall(json_answer(body))) as url, in_time():
        client = Http(f"{url}/v1", "", TIMEOUT_S + SLACK_S, 0, 1)
        with pytest.raises(Fault, match=words) as fault:
            client.post("/chat/completions", {})
        client.close()
    assert len(str(fault.value)) < 500


@pytest.mark.parametrize("body", [DEEP, b"{", b"[1" + b"0" * 9999 + b"]"])
def test_what_prefects_server_says_is_json_or_an_error_that_its_callers_expect(body: bytes) -> None:
    with (
        serving(lambda connection: connection.sendall(json_answer(body))) as url,
        pytest.raises(ValueError, match="JSON"),
    ):
        ask(url, "/api", timeout_s=TIMEOUT_S + SLACK_S)


def test_nothing_is_followed_and_no_secret_goes_elsewhere() -> None:
    heard: list[bytes] = []
    moved = b"HTTP/1.1 307 Moved\r\nlocation: /again\r\ncontent-length: 0\r\n\r\n"

    def moving(connection: socket.socket) -> None:
        heard.append(b"")
        connection.sendall(moved)

    with serving(moving) as url:
        client = Http(f"{url}/v1", "key", TIMEOUT_S + SLACK_S, 0, 1)
        with pytest.raises(Fault, match="answers 307"):
            client.post("/chat/completions", {})
        client.close()
        with pytest.raises(Refused, match="307"):
            ask(url, "/api", "user:word")
    assert len(heard) == 2


def test_a_proxy_of_the_environment_is_for_webhooks_and_not_for_judges(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard: list[bytes] = []

    def proxy(connection: socket.socket) -> None:
        heard.append(connection.recv(65536))
        connection.sendall(json_answer(b"{}"))

    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with serving(proxy, reads=False) as url:
        monkeypatch.setenv("http_proxy", url.replace("http://", "http://me:word@"))
        assert exchange("GET", "http://hooks.invalid/x", 5.0).json() == {}
        client = Http("http://judge.invalid/v1", "", 5.0, 0, 1)
        with pytest.raises(Fault, match="gaierror"):
            client.get("/models")
        client.close()
    first = heard[0].decode()
    assert first.startswith("GET http://hooks.invalid/x HTTP/1.1")
    assert "Proxy-Authorization: Basic bWU6d29yZA==" in first
    assert "host: hooks.invalid" in first.lower()


@pytest.mark.parametrize("url", ["", "ftp://x/", "http:///x", "http://x:port/", "http://x:99999/", "http://[/", "x.example"])  # fmt: skip
def test_what_is_no_address_is_said_and_not_repeated(url: str) -> None:
    with pytest.raises(NoHttp, match=r"this is no address of http:// or https://"):
        exchange("GET", url, 1.0)


def test_connections_are_kept_and_used_by_threads_side_by_side() -> None:
    opened: list[int] = []

    def patient(connection: socket.socket) -> None:
        opened.append(1)
        heard = b""
        while more := connection.recv(65536):
            heard += more
            if heard.endswith(b"\r\n\r\nx"):  # headers and body may come one by one
                heard = b""
                connection.sendall(json_answer(b"{}"))

    with serving(patient, reads=False) as url:
        client = HttpClient(connections=3)
        with ThreadPoolExecutor(3) as pool:
            found = list(pool.map(lambda _: client.exchange("POST", url, 20.0, b"x").json(), range(60)))
        client.close()
    assert found == [{}] * 60
    assert len(opened) <= 3
