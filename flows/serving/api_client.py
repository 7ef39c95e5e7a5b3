"""Asking a Prefect server over HTTP, without importing Prefect: for the supervisor and for `doctor`."""

from __future__ import annotations

import base64
import json
from typing import Any


class Refused(Exception):
    """The server answered with an HTTP error; `status` is its code."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"HTTP {status}: {body[:300]}")
        self.status = status


def ask(api: str, path: str, auth: str | None = None, timeout_s: float = 10.0, body: Any = None) -> Any:
    """The JSON that `api` + `path` answers: GET, or POST where there is a `body`.

    Args:
        api: address of the server's API.
        path: below it.
        auth: "user:password".
        timeout_s: for all of it.
        body: what to post, as JSON.

    Raises:
        Refused: the server said no.
        OSError: nothing answered, or not in time.
        ValueError: what answered does not speak JSON.
    """
    from data.http_client import exchange

    token = base64.b64encode((auth or "").encode()).decode()
    headers = {"content-type": "application/json"} | ({"authorization": f"Basic {token}"} if auth else {})
    data = None if body is None else json.dumps(body).encode()
    answer = exchange("GET" if body is None else "POST", f"{api}{path}", timeout_s, data, headers)
    if not 200 <= answer.status < 300:
        raise Refused(answer.status, answer.body.decode(errors="replace"))
    return answer.json()
