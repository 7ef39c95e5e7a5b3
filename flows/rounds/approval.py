"""Asking a person whether a candidate may become champion: the form, what it says, and the suspended run.

A suspended run holds no process, no slot and no device. Whoever opens it in the UI sees the verdict in words
and clips from before and after; the answer starts the run again, in a new process.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Final, Literal
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from pydantic import Field, ValidationError

from data.errors import VidloopError
from data.store import Store
from flows.reporting.artifacts.sheets import sheets_markdown
from flows.reporting.markdown import plain
from flows.reporting.page import template
from flows.reporting.words import examined
from tasks.campaign_record import Waiting
from tasks.promotion import Answer
from tasks.summary import RoundSummary

# What the pictures may weigh in Prefect's database and in a browser; those that do not fit are left out.
PICTURE_BYTES: Final = 256 * 1024


class Approval(RunInput):
    """Whether a candidate becomes champion, who says so, and why."""

    approve: Literal["yes", "no"] = Field(
        title="Promote the candidate?",
        description="yes: it becomes champion, if that is still the policy it was compared with. "
        "no: the champion stays.",
        json_schema_extra={"position": 0},
    )
    reason: str = Field(
        min_length=1,
        max_length=2000,
        title="Reason",
        description="Why. It is kept with the verdict, and with the champion.",
        json_schema_extra={"position": 1},
    )
    who: str = Field(
        min_length=1,
        max_length=200,
        title="Who",
        description="Your name, as it should be kept beside the reason.",
        json_schema_extra={"position": 2},
    )


def ask(store: Store, waiting: Waiting, summary: RoundSummary) -> Answer | None:
    """Suspend this flow run until a person answers; called again when it was resumed, the answer.

    Returns:
        The answer; None if the time is over and there is none. While there is time and no answer it does not
        return: Prefect ends the process.

    Args:
        store: of the round.
        waiting: the question.
        summary: of the round.
    """
    key = f"approval-{waiting.round.lower()}"  # Prefect takes nothing else
    left = (datetime.fromisoformat(waiting.until) - datetime.now(UTC)).total_seconds()
    with get_client(sync_client=True) as client:
        policy = client.read_flow_run(UUID(waiting.run)).empirical_policy
    asked = key in (policy.pause_keys or ())
    if left <= 0 and not asked:
        return None
    form: type[Approval] = Approval
    if not asked:
        form = Approval.with_initial_data(description=question(store, summary, waiting.until))
    try:
        # Where it has been asked before, Prefect returns what was filled in.
        said = suspend_flow_run(wait_for_input=form, timeout=max(1, math.ceil(left)), key=key)
    except ValidationError:
        if not asked:
            raise
        return None  # nothing was: the run was started again by Retry, not by an answer
    return Answer(said.approve == "yes", said.who, said.reason)


def question(store: Store, summary: RoundSummary, until: str) -> str:
    """The form's text in markdown: the verdict in words, tables, and clips before and after.

    Args:
        store: of the round.
        summary: of the round.
        until: when the time to answer ends.

    Returns:
        Markdown; its pictures and their captions weigh at most `PICTURE_BYTES`.
    """
    try:
        clips = sheets_markdown(store, summary, limit=PICTURE_BYTES)
    except VidloopError as error:  # a store that is damaged there keeps nobody from answering
        clips = f"No clips can be shown: {plain(str(error))}"
    return template(
        "question.md.j2",
        summary=summary,
        compared={f"all {examined(summary)}": summary.primary, **summary.compared},
        until=until,
        clips=clips.rstrip(),
        page=store.where(f"rounds/{summary.round}/report.html"),
    )
