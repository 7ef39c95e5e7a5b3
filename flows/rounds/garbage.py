"""Flow `gc`: gather tables, remove what nothing in the store refers to, and old runs of the server."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound
from pydantic import Field

from data.plugins import plugins
from data.store import Store
from data.store.compaction import compact
from data.store.gc import collect
from flows.reporting import console
from flows.reporting.messages import DEFAULT_STORE
from flows.rounds.run_request import StoreField, titled
from tasks.stages import STAGES

# Runs of other flows on the same server are not ours to delete.
# A command of an installed package has the name of its flow.
OURS: Final = (
    *("round", "improve", "nightly", "gc"),
    *(spec.flow for spec in STAGES.values()),
    *plugins("vidloop.commands"),
)
_OVER: Final = [StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED]
_PAGE: Final = 200
# With fewer units in no segment a query is quick enough.
_LEAST: Final = 256


def gc_name() -> str:
    """What this run does."""
    from prefect.runtime import flow_run

    return "dry run" if flow_run.parameters.get("dry_run", True) else "collect"


@flow(name="gc", flow_run_name=gc_name, result_serializer="json")
def gc_flow(
    store: StoreField = DEFAULT_STORE,
    dry_run: Annotated[bool, titled("Dry run")] = True,
    safe_hours: Annotated[int, Field(ge=1, le=24 * 365), titled("Safe age of files, hours")] = 24,
    runs_days: Annotated[int, Field(ge=1, le=36500), titled("Keep runs for, days")] = 90,
) -> dict[str, Any]:
    """Remove files that no committed work reaches, and old runs from Prefect's database.

    Committed work is never touched: no clip, no score, no policy, and nothing that a running round writes.
    Its rows are gathered in segments first, so that queries stay quick.

    Args:
        store: The folder, or s3://BUCKET/PREFIX, that keeps everything.
        dry_run: Only count what would be removed.
        safe_hours: Files that were written or used since are left alone; longer than any shard takes.
        runs_days: Runs that ended earlier are deleted with their logs; the store keeps their work.
    """
    opened, say = Store.open(store), console.info
    told = "would be removed" if dry_run else "removed"
    gathered = 0
    if not dry_run:
        gathered = compact(opened, least=_LEAST).units
        say(f"{gathered} units gathered in segments")
    found = collect(opened, delete=not dry_run, min_age_s=safe_hours * 3600.0)
    size = f"{len(found.files)} files, {found.bytes / 1e6:.1f} MB"
    say(f"{size}, {told}; {found.young} younger ones are left alone")
    with get_client(sync_client=True) as client:
        runs = _old_runs(client, runs_days, delete=not dry_run)
    say(f"{runs} runs {told} from Prefect's database: ended more than {runs_days} days ago")
    return {
        "deleted": not dry_run,
        "files": len(found.files),
        "bytes": found.bytes,
        "young": found.young,
        "runs": runs,
        "gathered": gathered,
    }


def _old_runs(client: SyncPrefectClient, days: int, delete: bool) -> int:
    """Runs that are over since so many days; deleting one deletes its task runs and logs."""
    before = datetime.now(UTC) - timedelta(days=days)
    ours = FlowFilter(name=FlowFilterName(any_=[*OURS]))
    over = FlowRunFilter(
        end_time=FlowRunFilterEndTime.model_validate({"before_": before}),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_OVER)),
    )
    count = seen = 0
    # Deleted ones make room for the next page; others are paged through.
    while page := client.read_flow_runs(
        flow_filter=ours, flow_run_filter=over, limit=_PAGE, offset=0 if delete else seen
    ):
        seen += len(page)
        for run in page:
            with suppress(ObjectNotFound):  # somebody else was faster
                if delete:
                    client.delete_flow_run(run.id)
                count += 1
    return count
