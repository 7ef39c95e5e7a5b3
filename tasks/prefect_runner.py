"""The same units as Prefect task runs: Prefect observes and retries, the store remembers.

A task's cache key is the unit's own key, and the cache is refreshed when the store does not hold the answer
whole, so that the UI says Cached only when the bytes are there. Prefect's result records hold references, as
JSON, and lie in the store they belong to.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.tasks import exponential_backoff
from prefect.utilities.annotations import quote

from data.store import Store
from tasks import spread
from tasks.units import RETRIES, Listener, Runner, Unit, do_nothing, is_transient, unit_key

RESULTS = "prefect-results"


def prefect_runner(
    store: Store, workers: int, listener: Listener, ready: Callable[[], None] = do_nothing
) -> Runner:
    """A runner that executes each unit as a task run of the Prefect flow it is called in."""

    def execute(unit: Unit, whole: bool) -> None:
        run = _task(unit.task).with_options(
            result_storage=Path(store.root) / RESULTS, refresh_cache=not whole
        )
        run(quote(unit), unit_key(unit), unit.label, whole)

    return Runner(workers, listener, execute, ready)


@functools.cache
def _task(name: str) -> Task[..., dict[str, Any]]:
    return Task(
        _answer,
        name=name,
        task_run_name="{label}",
        cache_key_fn=_key,
        persist_result=True,
        result_serializer="json",
        retries=RETRIES,
        retry_delay_seconds=exponential_backoff(2),
        retry_jitter_factor=0.5,
        retry_condition_fn=_may_pass,
    )


def _answer(unit: Unit, key: str, label: str, whole: bool) -> dict[str, Any]:
    # Whole without a record of Prefect's: computed by another server, or without Prefect.
    if not whole:
        spread.run(unit)
    return {"unit": label, "key": key, "manifests": list(unit.keys)}


def _key(context: TaskRunContext, parameters: dict[str, Any]) -> str:
    return str(parameters["key"])


def _may_pass(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    error = state.result(raise_on_failure=False)
    return isinstance(error, BaseException) and is_transient(error)
