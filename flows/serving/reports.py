"""Reports of rounds, for whoever follows the link in a round's card: `/reports/<round id>?key=...`.

A browser that follows a link does not send the auth string, and it opens no file for a page that came from a
server. So the server that `vidloop serve` starts has one path more than Prefect's own, for the rounds of one
store, and the link carries a key that only those who know the auth string can make: it opens this report and
nothing else. The page is given no origin (a sandbox without `allow-same-origin`): beside it, the UI keeps the
auth string in the browser.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from data.errors import StoreError
from data.store import Store, backend_of
from flows.reporting.report_link import PATH, key_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

_ROUND: Final = re.compile(r"[0-9A-Za-z-]{1,64}")
_HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": "sandbox allow-scripts",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def route(store: str, auth: str) -> Route:
    """The path and what answers there."""
    from starlette.responses import FileResponse, PlainTextResponse
    from starlette.routing import Route

    one_at_a_time = asyncio.Lock()

    def refused(status: int, why: str) -> Response:
        return PlainTextResponse(f"{why}\n", status, _HEADERS)

    async def report(request: Request) -> Response:
        round_id = request.path_params["round_id"]
        given = request.query_params.get("key", "")
        if not hmac.compare_digest(key_of(auth, round_id).encode(), given.encode()):
            return refused(403, "This link's key is not one of this server's.")
        try:
            async with one_at_a_time:
                page = await asyncio.to_thread(_page, store, round_id)
                if page is None:
                    return refused(404, f"The store {store} holds no round {round_id}.")
                if told := "" if page.is_file() else await _write(store, round_id):
                    return refused(500, f"The report could not be written: {told}")
                written = await asyncio.to_thread(_page, store, round_id)
        except StoreError as error:
            return refused(500, f"The store cannot be read: {error}")
        return FileResponse(written or page, media_type="text/html", headers=_HEADERS)

    # All that lies below is ours to refuse: else Starlette looks for the address without its last slash, and
    # trips over a query that is no text.
    return Route(PATH.replace("}", ":path}"), report, methods=["GET"])


def _page(store: str, round_id: str) -> Path | None:
    """Where a round's report lies, or would lie, on this machine; None: the store holds no such round."""
    if not _ROUND.fullmatch(round_id):
        return None
    opened, page = Store(backend_of(store)), f"rounds/{round_id}/report.html"
    if not opened.has(f"rounds/{round_id}/summary.json"):
        return None
    with contextlib.suppress(OSError):
        return opened.local(page)
    return opened.backend.workspace / "unwritten" / page


async def _write(store: str, round_id: str) -> str:
    """Have `vidloop report` write the page, in a process of its own; why it did not, if it did not."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "flows", "report", round_id, "--store", store,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, said = await process.communicate()
    return (
        "" if process.returncode == 0 else said.decode(errors="replace").strip()[-2000:] or "no reason given"
    )
