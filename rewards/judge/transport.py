"""Requests to an OpenAI-compatible server: a deadline each, retries for what may pass, the rest named.

Three kinds of failure, and none of them is ever a number: `Refused` (this request is wrong: 400, 413, 422),
`Fault` (the server failed or made no sense: it may do better later), and ServiceError (nothing this client
asks can work: the key, the address, the model's name).
"""

from __future__ import annotations

import copy
import json
import math
import random
import ssl
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from data.errors import ServiceError
from rewards.judge.answers import Fault, Refused

if TYPE_CHECKING:
    from data.http_client import Answer

_REFUSED: Final = (400, 413, 422)
_WRONG: Final = {
    401: "it does not accept the key: set the environment variable that judge.api_key_env names",
    403: "the key may not do this: set the environment variable that judge.api_key_env names",
    404: "there is no such address or model there: look at judge.url and judge.served_name",
}
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
_LONGEST_WAIT_S: Final = 60.0


class Http:
    """A client of one server; safe to use from several threads.

    Raises:
        ServiceError: `ca_file` is no file of certificates.
    """

    def __init__(
        self, url: str, key: str, timeout_s: float, retries: int, connections: int, ca_file: str = ""
    ) -> None:
        from data.http_client import HttpClient

        self.url = url.rstrip("/")
        self._key = key
        self._timeout_s = timeout_s
        self._retries = retries
        self._closing = threading.Event()
        # Clips and keys go where the settings say and nowhere else: no proxy, and no redirect is followed.
        self._client = HttpClient(connections, _trusted(ca_file) if ca_file else None)

    def close(self) -> None:
        """Close the connections; whoever waits before a retry gives up."""
        self._closing.set()
        self._client.close()

    @property
    def near(self) -> bool:
        """Whether the server stands on this machine."""
        return urlsplit(self.url).hostname in _LOOPBACK

    def root(self) -> Http:
        """The same client for addresses beside /v1, such as /version."""
        other = copy.copy(self)
        other.url = self.url.removesuffix("/v1")
        return other

    def get(self, path: str, retries: int | None = 0) -> dict[str, Any]:
        """One GET below the server's root; `retries` and errors as of `post`."""
        return self._tried("GET", path, None, self._timeout_s, retries)

    def post(
        self, path: str, body: dict[str, Any], timeout_s: float | None = None, retries: int | None = None
    ) -> dict[str, Any]:
        """One POST, again up to `retries` times (None: as the settings say) where that may help.

        Raises:
            Refused: the request itself is wrong.
            Fault: no sensible answer after all retries.
            ServiceError: the server will answer nothing of ours.
        """
        return self._tried("POST", path, body, timeout_s or self._timeout_s, retries)

    def _tried(
        self, method: str, path: str, body: dict[str, Any] | None, timeout_s: float, retries: int | None
    ) -> dict[str, Any]:
        most = self._retries if retries is None else retries
        for attempt in range(most + 1):
            try:
                return self._once(method, path, body, timeout_s)
            except Fault as error:
                if attempt == most or self._closing.is_set():
                    raise Fault(f"{error} ({attempt + 1} attempts)") from None
                self._closing.wait(self._delay(attempt, error.wait_s))
        raise AssertionError("unreachable")

    def _once(self, method: str, path: str, body: dict[str, Any] | None, timeout_s: float) -> dict[str, Any]:
        from data.http_client import NoHttp

        headers = {"authorization": f"Bearer {self._key}"} if self._key else {}
        content = None
        if body is not None:
            headers |= {"content-type": "application/json"}
            content = json.dumps(body, allow_nan=False).encode()
        try:
            answer = self._client.exchange(method, f"{self.url}{path}", timeout_s, content, headers)
        except (OSError, NoHttp) as error:
            raise Fault(f"{type(error).__name__}: {error}") from None
        status = answer.status
        if status in _WRONG:
            raise ServiceError(
                f"judge: {self.url}{path} answers {status}: {_WRONG[status]}. {self._said(answer.body)}"
            )
        if status in _REFUSED:
            raise Refused(f"the server refuses the request with {status}: {self._said(answer.body)}")
        if status != 200:
            raise Fault(f"the server answers {status}: {self._said(answer.body)}", _retry_after(answer))
        try:
            found = answer.json()
        except ValueError as error:
            raise Fault(f"the server's answer is {error}: {self._said(answer.body)}") from None
        if not isinstance(found, dict):
            raise Fault(f"the server's answer is a JSON {type(found).__name__}, not an object")
        return found

    def _said(self, content: bytes) -> str:
        """The beginning of what the server said, on one line, without the key, which it may repeat."""
        text = content.decode("utf-8", "replace")
        text = " ".join((text.replace(self._key, "(the key)") if self._key else text)[:600].split())
        # It goes to terminals, which obey some characters.
        return "".join(one if one.isprintable() else "?" for one in text[:300]) or "(nothing)"

    @staticmethod
    def _delay(attempt: int, asked_s: float) -> float:
        jitter = random.uniform(0.5, 1.5)  # noqa: S311  (spreads load, hides nothing)
        return min(_LONGEST_WAIT_S, max(asked_s, 0.25 * 2.0**attempt * jitter))


def _trusted(ca_file: str) -> ssl.SSLContext:
    """Trust in what the authority of `ca_file` signs, and in nothing else. Raises ServiceError."""
    path = Path(ca_file).expanduser()
    try:
        return ssl.create_default_context(cafile=str(path))
    except OSError as error:  # ssl.SSLError is one
        raise ServiceError(f"judge.ca_file: {path} is no file of certificates (PEM): {error}") from None


def _retry_after(answer: Answer) -> float:
    try:
        seconds = float(answer.headers.get("retry-after", 0.0))
    except ValueError:  # a date
        return 0.0
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0
