"""What is sent to Prefect's server for people to see. What goes wrong is said in the log, and no more."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import cast
from uuid import UUID

from prefect.artifacts import ProgressArtifact, update_progress_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import Artifact
from prefect.context import FlowRunContext
from prefect.settings import get_current_settings

from flows.reporting import console


def seen() -> bool:
    """Whether anybody can look: Prefect's temporary server has no UI, and ends with the round."""
    return FlowRunContext.get() is not None and get_current_settings().server.ui.enabled


def own_run() -> UUID | None:
    """Id of the flow run at work; None outside of one."""
    context = FlowRunContext.get()
    return context.flow_run.id if context is not None and context.flow_run is not None else None


def attempt(what: str, write: Callable[[], object]) -> None:
    """Call `write`. A round never fails because something about it could not be shown."""
    try:
        write()
    except Exception as error:
        complain(what, error)


def complain(what: str, error: Exception) -> None:
    """Say in the log what people will not see, and why."""
    told = " ".join(f"{type(error).__name__}: {error}".split())
    console.info(f"    {what} cannot be shown in the UI ({told[:300]}); the run goes on")


def key_of(kind: str, name: str = "") -> str:
    """A key that Prefect takes: lowercase letters, digits and dashes. The same name gives the same key."""
    return re.sub(r"[^a-z0-9]+", "-", f"{kind} {name}".lower()).strip("-")


def progress(key: str, percent: float, text: str, artifact: UUID | None, run: UUID | None) -> UUID:
    """Write a progress artifact, or move the one that is there.

    Args:
        key: of the artifact.
        percent: 0 to 100.
        text: its description.
        artifact: the one to move; None: make one.
        run: the flow run that a new one belongs to; None: the one at work.

    Returns:
        The artifact's id.
    """
    # Their types leave open whether they answer or promise; in a thread without an event loop they answer.
    if artifact is not None:
        return cast(UUID, update_progress_artifact(artifact, percent, text))
    made = ProgressArtifact(key=key, description=text, progress=percent, flow_run_id=run)
    return cast(Artifact, made.create()).id


def rename(name: str) -> None:
    """Give the flow run at work another name."""
    run = own_run()
    if run is not None:
        get_client(sync_client=True).set_flow_run_name(run, name)
