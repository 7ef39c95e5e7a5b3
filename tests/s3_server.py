"""moto as S3 on this machine, in an environment of its own (`make moto`), and a proxy before it that misbehaves."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

VENV = Path(os.environ.get("VIDLOOP_MOTO_VENV") or Path(__file__).resolve().parents[1] / ".venv-moto")
BUCKET = "vidloop-tests"
SECRET = "hush-hush-secret"
KEY = "AKIDHUSHHUSHKEY"


@dataclass
class S3:
    """A server, and the environment that names it."""

    port: int
    environment: dict[str, str] = field(default_factory=dict)

    def url(self) -> str:
        """A prefix that nobody has used."""
        return f"s3://{BUCKET}/{uuid.uuid4().hex[:12]}"


def environment_of(port: int, cache: Path) -> dict[str, str]:
    """What a process is told of the server at a port."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "VIDLOOP_CACHE": str(cache),
        "VIDLOOP_STORE_SECONDS": "20",
    }


@pytest.fixture(scope="session")
def moto() -> Iterator[int]:
    """The port of a server that this session shares."""
    program = VENV / "bin" / "moto_server"
    if not program.exists():
        pytest.skip(f"no moto in {VENV}: `make moto` installs it")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [program, "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        make = urllib.request.Request(f"http://127.0.0.1:{port}/{BUCKET}", method="PUT")
        for _ in range(600):
            try:
                urllib.request.urlopen(make, timeout=5).read()
                break
            except OSError:
                assert server.poll() is None, "moto ended"
                time.sleep(0.1)
        yield port
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def s3(moto: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> S3:
    """The server, named by this process's environment."""
    found = S3(moto, environment_of(moto, tmp_path / "cache"))
    for name, value in found.environment.items():
        monkeypatch.setenv(name, value)
    return found


# Of a request (its number from 1, method, path): what becomes of it. None: it goes through.
Fate = Callable[[int, str, str], "str | None"]
FATES = ("500", "503", "hang", "answer lost", "ignore conditions", "403", "skew", "badkey")
_BODIES = {
    "500": (500, "InternalError"),
    "503": (503, "SlowDown"),
    "403": (403, "AccessDenied"),
    "skew": (403, "RequestTimeTooSkewed"),
    "badkey": (403, "InvalidAccessKeyId"),
}


@dataclass
class Proxy:
    """A server before the server. `fate` may be replaced while it works.

    Attributes:
        requests: method and path of each, in order.
    """

    port: int
    fate: Fate = lambda number, method, path: None
    requests: list[tuple[str, str]] = field(default_factory=list)


@pytest.fixture
def proxy(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy that this process's environment names in the server's place."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            said.requests.append((self.command, self.path))
            fate = said.fate(len(said.requests), self.command, self.path)
            if fate == "hang":
                ended.wait(60)
                self.close_connection = True
                return
            if fate in _BODIES:
                status, code = _BODIES[fate]
                text = f"<Error><Code>{code}</Code><AWSAccessKeyId>{KEY}</AWSAccessKeyId></Error>".encode()
                self._answer(status, {}, text)
                return
            headers = {name: value for name, value in self.headers.items()}
            if fate == "ignore conditions":
                headers = {k: v for k, v in headers.items() if k.lower() not in ("if-match", "if-none-match")}
            link = http.client.HTTPConnection("127.0.0.1", s3.port, timeout=60)
            link.request(self.command, self.path, body, headers)
            answer = link.getresponse()
            content = answer.read()
            link.close()
            if fate == "answer lost":
                self.close_connection = True
                return
            self._answer(answer.status, dict(answer.getheaders()), content)

        def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            told = {name.lower(): value for name, value in headers.items()}
            length = told.get("content-length") if self.command == "HEAD" else None
            self.send_header("content-length", length or str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _handle

    ended = threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    said = Proxy(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{said.port}")
    yield said
    ended.set()
    server.shutdown()
    server.server_close()
