"""What `vidloop serve` reads, and names of rounds, policies and units, wherever they may be typed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any
from urllib.parse import unquote

from starlette.applications import Starlette

from data import champion
from data.errors import VidloopError
from flows.reporting.report_link import key_of
from flows.serving.reports import route
from flows.serving.server_config import ServerConfig, read_auth
from tasks import rounds
from tests.fuzz.target import Target, folder
from tests.fuzz.targets.stores import store

_ROUND = "20261130T120000-00000000"


def _config(data: bytes) -> None:
    home = folder() / "serve"
    home.mkdir(exist_ok=True)
    (home / "serve.json").write_bytes(data)
    ServerConfig.load(home)


def _configs() -> Iterator[bytes]:
    yield b'{"folder": "/tmp/f", "store": "/tmp/s", "host": "127.0.0.1", "port": 4200, "devices": ["cpu"], "recipes": []}'


def _auth(data: bytes) -> None:
    path = folder() / "auth"
    path.touch(0o600)
    path.write_bytes(data)
    read_auth(path)


@cache
def _app() -> tuple[asyncio.AbstractEventLoop, Starlette]:
    """What answers for a store with one round, whose report is written."""
    home = folder() / "served"
    (home / "rounds" / _ROUND).mkdir(parents=True)
    for name in ("summary.json", "report.html"):
        (home / "rounds" / _ROUND / name).write_text("{}")
    return asyncio.new_event_loop(), Starlette(routes=[route(str(home), "user:word")])


def _address(data: bytes) -> None:
    """A path and a query, as a server of ASGI hands them on; with the right key for whatever it names."""
    path, _, query = data.partition(b"?")
    name = unquote(path.decode("latin-1"))
    for asked in (query, b"key=%s" % key_of("user:word", name.encode("utf-8", "replace").decode()).encode()):
        status = _get(f"/reports/{name}", path, asked)
        assert status < 500, status


def _get(path: str, raw: bytes, query: bytes) -> int:
    loop, app = _app()
    said: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        said.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http", "path": path,
        "raw_path": raw, "query_string": query, "root_path": "", "headers": [], "server": ("h", 80), "client": ("c", 1),
    }  # fmt: skip
    loop.run_until_complete(app(scope, receive, send))
    return int(said[0]["status"])


def _name(data: bytes) -> None:
    name = os.fsdecode(
        data.replace(b"\0", b"")
    )  # as an argument of a command, which holds every byte but NUL
    asked: tuple[Callable[[], object], ...] = (
        lambda: rounds.read_summary(store(), name),
        lambda: champion.set_champion(store(), name),
        lambda: store().manifest(name),
        lambda: store().read(name, "scores"),
    )
    for ask in asked:
        try:
            ask()
        except VidloopError as error:
            os.fsencode(str(error))  # it can be printed


_PATHS = ("..", "/", "%2e%2e", "%2f", "%00", "key=", "&", "?", _ROUND, "\x7f", "\udcff")
TARGETS = (
    Target("serve-config", _config, _configs, words=("folder", "port", "devices", "null", "1e999", "[[[["), trees=True, most=1024, share=6),
    Target("serve-auth", _auth, lambda: [b"user:word\n", b"\xef\xbb\xbfuser:w\xc3\xb6rd"], most=256, share=3),
    Target("report-address", _address, lambda: [b"20261130T120000-00000000?key=0", b"%2e%2e?key=%C3%28&key=1"],
           words=_PATHS[:-1], most=512, share=0),
    Target("names", _name, lambda: [b"20261130T120000-00000000", b"champion", b"0" * 64], words=_PATHS[:-1], most=512, share=4),
)  # fmt: skip
