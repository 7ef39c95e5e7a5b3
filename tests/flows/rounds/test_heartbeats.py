"""That the end of a flow run does not wait for its heartbeats, and that Prefect still would without us."""

from __future__ import annotations

import inspect
import threading

import pytest
from prefect import flow, flow_engine
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from flows.rounds import heartbeats
from flows.rounds.round import round_flow


@flow
def nothing() -> None:
    """A flow to send heartbeats for."""


def waited_for(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For every thread that was begun for a flow run: whether the end of the run waited for it."""
    threads: list[threading.Thread] = []
    joined: list[threading.Thread] = []
    start, join = threading.Thread.start, threading.Thread.join
    with monkeypatch.context() as patched, temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: 30}):
        patched.setattr(threading.Thread, "start", lambda self: (threads.append(self), start(self))[1])
        patched.setattr(threading.Thread, "join", lambda self, timeout=None: joined.append(self))
        with flow_engine._send_heartbeats(flow_engine.FlowRunEngine(flow=nothing)):
            assert [thread.is_alive() for thread in threads] == [True]
    for thread in threads:  # it ends by itself all the same
        join(thread, 30)
        assert not thread.is_alive()
    return [thread in joined for thread in threads]


def test_the_end_of_a_run_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    assert round_flow.name == "round"  # whoever imports it has it so
    assert waited_for(monkeypatch) == [False]


def test_prefect_itself_would_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """When this fails, Prefect has cured it, or has built it otherwise: `flows.rounds.heartbeats` can go."""
    original = flow_engine._send_heartbeats.func  # type: ignore[attr-defined]  # a partial: see heartbeats
    assert inspect.signature(original).parameters["join_on_exit"].default is True
    monkeypatch.setattr(flow_engine, "_send_heartbeats", original)
    assert waited_for(monkeypatch) == [True]
    heartbeats.do_not_wait()
    assert waited_for(monkeypatch) == [False]
