"""The same units as Prefect task runs: Prefect observes and retries, the store remembers.

A unit that must be computed is a task run of its own. Those of a list that the store holds whole are one task
run together, in state Cached: it names them all, and what it costs does not grow with their number. Prefect
keeps no results of its own, for the store has verified the bytes before anything is called cached.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from prefect import Task, get_run_logger
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Completed
from prefect.tasks import exponential_backoff
from prefect.utilities.annotations import quote

from tasks import spread
from tasks.units import RETRIES, Listener, Runner, Unit, do_nothing, is_transient


def prefect_runner(workers: int, listener: Listener, ready: Callable[[], None] = do_nothing) -> Runner:
    """A runner whose work shows as task runs of the Prefect flow it is called in."""
    return Runner(workers, listener, _compute, _recall, ready)


def _compute(unit: Unit) -> None:
    _computing(unit.task)(quote(unit), unit.label)


def _recall(units: Sequence[Unit]) -> None:
    labels = [unit.label for unit in units]
    _recalling(units[0].task)(labels, labels[0] if len(labels) == 1 else f"{len(labels)} units")


@functools.cache
def _computing(name: str) -> Task[..., None]:
    return Task(
        _run,
        name=name,
        task_run_name="{label}",
        cache_policy=NO_CACHE,
        retries=RETRIES,
        retry_delay_seconds=exponential_backoff(2),
        retry_jitter_factor=0.5,
        retry_condition_fn=_may_pass,
    )


@functools.cache
def _recalling(name: str) -> Task[..., State[None]]:
    return Task(_name, name=name, task_run_name="{label}", cache_policy=NO_CACHE)


def _run(unit: Unit, label: str) -> None:
    spread.run(unit)


def _name(labels: Sequence[str], label: str) -> State[None]:
    get_run_logger().info("Whole in the store:\n%s", "\n".join(labels))
    return Completed(name="Cached", message=f"whole in the store: {label}")


def _may_pass(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    error = state.result(raise_on_failure=False)
    return isinstance(error, BaseException) and is_transient(error)
