"""Telling a webhook what came of a round: a JSON object, posted. Failures are told by an automation instead.

The address is a secret: whoever has it can post. It lies in a block of Prefect's server, encrypted, or in the
environment of a command without Prefect; never in a parameter, a log line, an error or the store.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any, Final
from urllib.parse import urlsplit

from data.errors import ConfigError
from flows.reporting import console
from tasks.campaign_record import Series
from tasks.summary import RoundSummary

# A web address that is told of verdicts and failures, and the block of the server that keeps it, encrypted.
NOTIFY_VARIABLE: Final = "VIDLOOP_NOTIFY_URL"
NOTIFY_BLOCK: Final = "vidloop-notify"
TIMEOUT_S: Final = 5.0
WAITS_S: Final = (1.0, 3.0)


def check_address(url: str) -> str:
    """`url`, if it can be posted to. Raises ConfigError, which does not repeat it."""
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        fine = False
    if not fine or not url.isprintable() or " " in url:
        raise ConfigError("the web address for notifications is not one of http:// or https://")
    return url


def tell_verdict(summary: RoundSummary, series: Series | None = None) -> None:
    """Post what a round came to, if somebody wants to know. Never raises; posting takes 20 s at most.

    Args:
        summary: the round's.
        series: the nights that it is one of, with what they have spent of their error budget.
    """
    waits = summary.approval is not None and summary.approval.answer is None
    event = "waiting for approval" if waits else "promoted" if summary.promoted else "kept"
    tell(
        event,
        round=summary.round,
        recipe=summary.recipe_name,
        verdict=summary.verdict,
        primary=summary.primary.model_dump(exclude={"reason"}),
        **({} if series is None else {"spent": series.spent, "error": series.error}),
    )


def tell(event: str, **facts: Any) -> None:
    """Post an event, if somebody wants to know. Never raises."""
    try:
        url = _address()
        if url:
            _post(url, json.dumps({"event": event, **_run(), **facts}, ensure_ascii=False).encode())
    except Exception as error:  # no message of theirs: it may hold the address
        _say(f"notification {event!r} was not sent ({type(error).__name__})")


def _post(url: str, body: bytes) -> None:
    from data.http_client import NoHttp, exchange

    why = ""
    for wait in (0.0, *WAITS_S):
        time.sleep(wait)
        try:
            # An answer that sends us elsewhere is no answer: what is posted is for the one address.
            answer = exchange(
                "POST", check_address(url), TIMEOUT_S, body, {"content-type": "application/json"}
            )
        except OSError as error:
            why = error.strerror or type(error).__name__
        except NoHttp:
            why = "what answers there speaks no HTTP"
        else:
            if 200 <= answer.status < 300:
                return
            why = f"HTTP {answer.status}"
            if answer.status < 500 and answer.status not in (408, 429):
                break
    _say(f"notification: nobody took it ({why}); the round does not depend on it")


def _address() -> str | None:
    """Where to post; None where nobody asked for it."""
    said = os.environ.get(NOTIFY_VARIABLE)
    if said or "prefect" not in sys.modules:
        return said
    from prefect.blocks.webhook import Webhook
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    if not _in_a_run():
        return None
    with get_client(sync_client=True) as client:
        try:
            held = client.read_block_document_by_name(NOTIFY_BLOCK, Webhook.get_block_type_slug())
        except ObjectNotFound:
            return None
        url = held.data.get("url")
        return url if isinstance(url, str) else None


def _in_a_run() -> bool:
    from prefect.context import FlowRunContext

    return FlowRunContext.get() is not None


def _run() -> dict[str, str | None]:
    """Which flow run speaks, and where it can be seen."""
    if "prefect" not in sys.modules or not _in_a_run():
        return {"flow": None, "run": None, "id": None, "url": None}
    from prefect.runtime import flow_run

    return {"flow": flow_run.flow_name, "run": flow_run.name, "id": flow_run.id, "url": flow_run.ui_url}


def _say(line: str) -> None:
    console.info(f"    {line}")
