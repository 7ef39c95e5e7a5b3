"""Servers that answer no request as they should: each a name, and what it does with a connection."""

from __future__ import annotations

import contextlib
import gzip
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator

# What may take this long until the client hangs up.
_FOR_EVER_S = 60.0
_PAUSE_S = 0.1
_OK = b"HTTP/1.1 200 OK\r\n"
Behaviour = Callable[[socket.socket], None]


def _drip(before: bytes, each: bytes, between: float = _PAUSE_S) -> Behaviour:
    """Send `before`, and then `each` again and again until nobody reads it."""

    def serve(connection: socket.socket) -> None:
        connection.sendall(before)
        end = time.monotonic() + _FOR_EVER_S
        while time.monotonic() < end:
            connection.sendall(each)
            time.sleep(between)

    return serve


def _say(*said: bytes) -> Behaviour:
    return lambda connection: connection.sendall(b"".join(said))


def json_answer(body: bytes, *headers: bytes) -> bytes:
    more = b"".join(header + b"\r\n" for header in headers)
    return _OK + more + b"content-length: %d\r\n\r\n" % len(body) + body


def _silent(connection: socket.socket) -> None:
    time.sleep(_FOR_EVER_S)


def _half_closed(connection: socket.socket) -> None:
    connection.sendall(_OK + b"content-length: 10\r\n\r\n{")
    connection.shutdown(socket.SHUT_WR)
    time.sleep(_FOR_EVER_S)


_BOMB = b" " * (64 << 20)

# By name: what it does once it has read the beginning of a request, and whether it takes up all of the time.
HOSTILE: dict[str, tuple[Behaviour, bool]] = {
    "nothing": (_silent, True),
    "status line, a byte now and then": (_drip(b"HTTP/1.1 200", b" "), True),
    "headers, a byte now and then": (_drip(_OK + b"x: ", b"x"), True),
    "headers without end": (_drip(_OK, b"x-more: " + b"x" * 4000 + b"\r\n", 0.0), False),
    "102 for ever": (_drip(b"", b"HTTP/1.1 102 Processing\r\n\r\n"), True),
    "100 in a flood": (_drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 500, 0.0), True),
    "body, a byte now and then": (_drip(_OK + b"content-length: 999\r\n\r\n", b" "), True),
    "small chunks in a flood": (_drip(_OK + b"transfer-encoding: chunked\r\n\r\n", b"1\r\n \r\n" * 999, 0.01), True),
    "chunks without end": (_drip(_OK + b"transfer-encoding: chunked\r\n\r\n", b"8000\r\n" + b" " * 32768 + b"\r\n", 0.0), False),
    "a chunk's length without end": (_drip(_OK + b"transfer-encoding: chunked\r\n\r\n", b"0" * 4000, 0.0), False),
    "a length of 10 TB": (_drip(_OK + b"content-length: 10000000000000\r\n\r\n", b" " * 65536, 0.0), False),
    "a body until the end that does not come": (_drip(_OK + b"\r\n", b" "), True),
    "gzip bomb": (_say(json_answer(gzip.compress(_BOMB), b"content-encoding: gzip")), False),
    "deflate bomb": (_say(json_answer(zlib.compress(_BOMB), b"content-encoding: deflate")), False),
    "compressed otherwise": (_say(json_answer(b"\x8b\x01\x80{}\x03", b"content-encoding: br")), False),
    "compressed twice": (_say(json_answer(gzip.compress(gzip.compress(_BOMB)), b"Content-Encoding: gzip, gzip")), False),
    "half closed": (_half_closed, False),
    "gone": (lambda connection: None, False),
    "no HTTP": (_say(b"220 mail.example ESMTP\r\n"), False),
}  # fmt: skip


@contextlib.contextmanager
def serving(behaviour: Behaviour, reads: bool = True) -> Iterator[str]:
    """The address of a server that does this with each connection; `reads`: once a request has begun."""

    def served(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):  # the client has hung up, as it should
            if reads:
                connection.recv(65536)
            behaviour(connection)
            # A connection that is closed with something unread is reset, and what was said may go with it.
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                threading.Thread(target=served, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
