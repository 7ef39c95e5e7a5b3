"""HTTP with one deadline for all of an exchange, whatever the other side's bytes do.

The time-outs of libraries are per receive: a server that sends one byte now and then, of its status line, its
headers, an answer 1xx or its body, never runs into them. Here every wait is as long as the deadline allows.
Nothing is followed, unpacked or kept that was not asked for: no redirects, no compressed answers, and no
more bytes than `LARGEST`.
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

import httpcore

LARGEST: Final = 4 << 20
# A machine that is there takes a connection at once; one that is gone should not use up a long deadline.
_CONNECT_S: Final = 10.0
# Shorter than servers keep an idle connection: one that they are closing is not to be used again.
_KEEP_S: Final = 4.0


class NoHttp(ValueError):
    """What came is no answer of HTTP that was asked for. The message cites nothing of it, nor the address."""


@dataclass(frozen=True)
class Answer:
    """What a server said.

    Attributes:
        status: 200 and the like.
        headers: by name in lower case; of several of one name the last.
        body: at most `LARGEST` bytes.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON. Raises ValueError, whose message ends "it is ...": it is none that we take."""
        try:
            return json.loads(self.body)
        except RecursionError:  # Python's own bound, about a thousand
            raise ValueError("JSON with too many parts inside one another") from None
        except (json.JSONDecodeError, UnicodeError):
            raise ValueError("not JSON") from None
        except ValueError:  # Python's own bound, 4,300 digits
            raise ValueError("JSON with a number of too many digits") from None


class HttpClient:
    """Connections to servers, kept between exchanges; safe to use from several threads. Close it.

    Args:
        connections: open at the same time, at most.
        trust: which certificates are believed; None: those that public authorities signed.
        proxy: address of a proxy; None: there is none, whatever the environment says.
    """

    def __init__(
        self, connections: int = 1, trust: ssl.SSLContext | None = None, proxy: str | None = None
    ) -> None:
        self._now = _Deadline()
        self._pool = httpcore.ConnectionPool(
            ssl_context=trust,
            proxy=None if proxy is None else _proxy(proxy),
            max_connections=connections,
            keepalive_expiry=_KEEP_S,
            network_backend=_Network(self._now),
        )

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    def exchange(
        self,
        method: str,
        url: str,
        timeout_s: float,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request and its answer, of any status but 1xx.

        Args:
            method: "GET", "POST".
            url: http:// or https://.
            timeout_s: for all of it: connecting, sending, headers and body. Only the look-up of a host's name
                is as long as the system's resolver lets it be.
            body: to send.
            headers: beside those that HTTP asks for.

        Raises:
            TimeoutError: the answer was not whole by then.
            OSError: nobody answers there, the connection broke, or the certificate is not believed.
            NoHttp: what came is no HTTP, compressed, or longer than `LARGEST`; or no header can hold what
                `headers` say; or `url` is no address.
        """
        host = _address(url).netloc.rpartition("@")[2]
        asked = {"host": host, "accept-encoding": "identity", "user-agent": "vidloop", **(headers or {})}
        self._now.set(timeout_s)
        try:
            # The one wait that is not for bytes: for another thread's connection.
            with self._pool.stream(
                method,
                url,
                headers=list(asked.items()),
                content=body,
                extensions={"timeout": {"pool": timeout_s}},
            ) as response:
                said = {name.decode("latin-1").lower(): value for name, value in response.headers}
                if said.get("content-encoding", b"identity").strip().lower() not in (b"identity", b""):
                    raise NoHttp("the answer is compressed, which was not asked for")
                content = self._read(response)
        except httpcore.TimeoutException as error:
            raise TimeoutError(f"no answer in time ({type(error).__name__})") from None
        except httpcore.NetworkError as error:
            cause = error.__cause__
            raise cause if isinstance(cause, OSError) else ConnectionError(str(error)) from None
        except (httpcore.ProtocolError, httpcore.UnsupportedProtocol, httpcore.ProxyError, UnicodeError):
            # Of a breach of HTTP the library may cite a header, and so a key.
            raise NoHttp("the server ended it, or this was no HTTP") from None
        return Answer(
            response.status, {name: value.decode("latin-1") for name, value in said.items()}, content
        )

    def _read(self, response: httpcore.Response) -> bytes:
        content = bytearray()
        for chunk in response.iter_stream():
            content += chunk
            self._now.left()  # of many small chunks none waits for bytes
            if len(content) > LARGEST:
                raise NoHttp("the answer is far too long")
        return bytes(content)


def exchange(
    method: str,
    url: str,
    timeout_s: float,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """`HttpClient.exchange` over a connection of its own, by the proxy and the authorities of the system."""
    place = _address(url)
    passed = urllib.request.proxy_bypass(place.hostname or "")
    client = HttpClient(
        trust=ssl.create_default_context() if place.scheme == "https" else None,
        proxy=None if passed else urllib.request.getproxies().get(place.scheme),
    )
    try:
        return client.exchange(method, url, timeout_s, body, headers)
    finally:
        client.close()


def answers(port: int, path: str, timeout_s: float = 5.0) -> bool:
    """Whether a server on loopback answers GET `path` with 200, within so many seconds."""
    client = HttpClient()
    try:
        return client.exchange("GET", f"http://127.0.0.1:{port}{path}", timeout_s).status == 200
    except (OSError, NoHttp):
        return False
    finally:
        client.close()


class _Deadline(threading.local):
    """When the exchange of this thread ends."""

    end = 0.0

    def set(self, timeout_s: float) -> None:
        self.end = time.monotonic() + timeout_s

    def left(self, most: float | None = None) -> float:
        """Seconds, above 0 and up to `most`. Raises TimeoutError: there are none."""
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer was not whole in time")
        return left if most is None else min(left, most)


class _Network(httpcore.NetworkBackend):
    """Connections that know of the deadline."""

    def __init__(self, now: _Deadline) -> None:
        self._now = now
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        refused: Exception = OSError(f"no address of {host}")
        # Each address by itself: the library would give each the whole of the time.
        for *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            try:
                left = self._now.left(_CONNECT_S)
                stream = self._inner.connect_tcp(
                    str(address[0]), port, left, local_address, socket_options or ()
                )
                return _Stream(stream, self._now)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                refused = error
        raise refused


class _Stream(httpcore.NetworkStream):
    """A connection of the library's, on which nothing waits longer than the deadline allows."""

    def __init__(self, inner: httpcore.NetworkStream, now: _Deadline) -> None:
        self._inner = inner
        self._now = now

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, self._now.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        # Not the library's, which begins the time anew for each piece that the other side takes.
        connection = self._inner.get_extra_info("socket")
        rest = memoryview(buffer)
        try:
            while rest:
                connection.settimeout(self._now.left())
                rest = rest[connection.send(rest) :]
        except TimeoutError:
            raise
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error  # the answer may have come nevertheless

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, self._now.left()), self._now)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


def _address(url: str) -> SplitResult:
    """The parts of an address. Raises NoHttp."""
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        fine = False
    if not fine:
        raise NoHttp("this is no address of http:// or https://")
    return parts


def _proxy(said: str) -> httpcore.Proxy:
    """A proxy as the environment names it: with or without a scheme, a user and a password."""
    parts = urlsplit(said if "://" in said else f"http://{said}")
    auth = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
    return httpcore.Proxy(parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl(), auth)
