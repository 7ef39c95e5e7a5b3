"""The page over HTTP: `/r/TOKEN/`, a secret link for each rater.

    GET  /r/TOKEN/                      the page; the same for all
    GET  /r/TOKEN/state                 what the rater is at: `session.state`
    GET  /r/TOKEN/video/NUMBER/SIDE     a clip of what he was shown, with Range requests
    POST /r/TOKEN/vote, /undo           JSON; answered by the new state once it is on the disk
    GET  /static/FILE                   the page's script and style

A wrong link and a wrong path get the same empty 404. The token in the path is what a foreign page does not
know, so none can vote in a rater's name; the page is told to name it to nobody (no-referrer).
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool

from data.errors import StoreError, VideoError
from data.store import Store
from flows.rating import keep, session
from flows.rating.database import Database
from flows.rating.session import Given, Refused
from flows.rating.videos import Videos

_PAGE: Final = Path(__file__).parent / "page"
_STATIC: Final = {"rate.js": "text/javascript", "rate.css": "text/css"}
_BODY_BYTES: Final = 2000
_NUMBER: Final = re.compile("[0-9]{1,8}")
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
_logger = logging.getLogger("vidloop.rating")

_Short = Annotated[str, Field(max_length=64)]


class _Vote(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    number: int = Field(ge=1, le=10_000_000)
    question: _Short
    answer: _Short
    seconds: float = Field(ge=0, le=86_400)
    plays: int = Field(ge=0, le=100_000)


class _Video(FileResponse):
    """A file whose time, and any tag made of it, would tell which of two clips is the older."""

    def set_stat_headers(self, stat_result: os.stat_result) -> None:
        self.headers.setdefault("content-length", str(stat_result.st_size))
        self.headers.setdefault("last-modified", "Thu, 01 Jan 1970 00:00:00 GMT")
        self.headers.setdefault("etag", '"clip"')


def application(database: Database, store: Store) -> FastAPI:
    """What answers: the page of one session."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    videos, committing = Videos(database, store), threading.Lock()

    @app.middleware("http")
    async def headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call_next(request)
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    @app.exception_handler(404)
    @app.exception_handler(405)
    async def unknown(request: Request, error: Exception) -> Response:
        return Response("Not found\n", 404, media_type="text/plain")

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return JSONResponse({"why": str(error)}, error.status)

    @app.exception_handler(_Unknown)
    async def no_rater(request: Request, error: _Unknown) -> Response:
        return Response("Not found\n", 404, media_type="text/plain")

    def whose(token: str) -> str:
        rater = session.rater_of(database, token)
        if rater is None:
            raise _Unknown
        return rater

    @app.get("/static/{name}")
    def static(name: str) -> Response:
        if name not in _STATIC:
            raise _Unknown
        return FileResponse(_PAGE / name, media_type=_STATIC[name])

    @app.get("/r/{token}/")
    def page(token: str) -> Response:
        whose(token)
        return FileResponse(_PAGE / "rate.html", media_type="text/html")

    @app.get("/r/{token}/state")
    def state(token: str) -> Any:
        return session.state(database, whose(token))

    @app.get("/r/{token}/video/{number}/{side}")
    def video(token: str, number: str, side: str) -> Response:
        rater = whose(token)
        clip = session.clip_of(database, rater, int(number), side) if _NUMBER.fullmatch(number) else None
        if clip is None:
            raise _Unknown
        try:
            file = videos.file(clip)
        except (StoreError, VideoError, OSError) as error:
            _logger.warning("clip %s cannot be shown: %s", clip.clip_id, error)
            return Response("The clip cannot be shown.\n", 500, media_type="text/plain")
        return _Video(file, media_type="video/mp4", headers={"Cache-Control": "private, max-age=3600"})

    @app.post("/r/{token}/vote")
    async def vote(token: str, request: Request) -> Any:
        rater = await run_in_threadpool(whose, token)
        body = await _body(request)
        try:
            given = Given(**_Vote.model_validate_json(body).model_dump())
        except ValidationError:
            raise Refused(422, "That is no vote.") from None

        def kept() -> dict[str, Any]:
            session.vote(database, rater, given)
            told = session.state(database, rater)
            if told.get("finished") or keep.due(database):
                threading.Thread(target=into_store, daemon=True).start()
            return told

        return await run_in_threadpool(kept)

    @app.post("/r/{token}/undo")
    def undo(token: str) -> Any:
        rater = whose(token)
        session.undo(database, rater)
        return session.state(database, rater)

    def into_store() -> None:
        if not committing.acquire(blocking=False):
            return
        try:
            keep.commit(database, store, everything=False)
        except StoreError as error:
            _logger.warning("votes wait in %s: %s", database.path, error)
        finally:
            committing.release()

    return app


class _Unknown(Exception):
    """A link that is nobody's, or a path that is nothing."""


async def _body(request: Request) -> bytes:
    """The body of a request. Raises Refused: it is not JSON by its type, or larger than any vote."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refused(415, "Send JSON.")
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _BODY_BYTES:
            raise Refused(413, "That is larger than any vote.")
    return body
