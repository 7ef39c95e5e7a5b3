"""Asking a Prefect server over HTTP, without importing Prefect: for the supervisor and for `doctor`."""

from __future__ import annotations

import base64
import http.client
import json
import urllib.error
import urllib.request
from typing import Any


class Refused(Exception):
    """The server answered with an HTTP error; `status` is its code."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"HTTP {status}: {body[:300]}")
        self.status = status


def ask(api: str, path: str, auth: str | None = None, timeout_s: float = 10.0, body: Any = None) -> Any:
    """The JSON that `api` + `path` answers: GET, or POST where there is a `body`.

    Raises:
        Refused: the server said no.
        OSError: nothing answered, or not in time.
        ValueError: what answered does not speak JSON.
    """
    token = base64.b64encode((auth or "").encode()).decode()
    headers = {"content-type": "application/json"} | ({"authorization": f"Basic {token}"} if auth else {})
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{api}{path}", data, headers)  # noqa: S310  (the address is the user's own server)
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise Refused(error.code, error.read().decode(errors="replace")) from None
    except http.client.HTTPException as error:
        raise ValueError(f"no HTTP: {error}") from None
