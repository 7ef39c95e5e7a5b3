"""What we change in Prefect works, Prefect still needs it, and a Prefect that is built otherwise is noticed."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import threading
from pathlib import Path
from uuid import uuid4

import pytest
from prefect import flow, flow_engine
from prefect.client.schemas import FlowRun
from prefect.exceptions import SignatureMismatchError
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from flows.rounds import prefect_hooks
from flows.rounds.round import round_flow
from flows.serving import prefect_settings
from tests.tiny_round import ROOT

# Two transactions of Prefect's own kind on one SQLite file, each reading before it writes.
TWO = """
import asyncio
import sys

from flows.rounds.prefect_hooks import begin_immediate

if sys.argv[2] == "in turn":
    begin_immediate()

import sqlalchemy as sa
from prefect.server.database.configurations import AioSqliteConfiguration


async def add(config, engine, read=None, other=None):
    async with await config.session(engine) as session:
        async with config.begin_transaction(session):
            await session.execute(sa.text("SELECT count(*) FROM t"))
            if read is not None:
                read.set()
                await asyncio.wait([other], timeout=1)
            await session.execute(sa.text("INSERT INTO t VALUES (1)"))


async def main():
    config = AioSqliteConfiguration(f"sqlite+aiosqlite:///{sys.argv[1]}")
    engine = await config.engine()
    async with engine.connect() as connection:
        await connection.execute(sa.text("CREATE TABLE t (x)"))
    read = asyncio.Event()

    async def later():
        await read.wait()
        await add(config, engine)

    second = asyncio.create_task(later())
    await add(config, engine, read, second)
    await second
    async with engine.connect() as connection:
        print("rows:", (await connection.execute(sa.text("SELECT count(*) FROM t"))).scalar())


asyncio.run(main())
"""


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
    """When this fails, Prefect has cured it, or has built it otherwise: the hook can go."""
    original = flow_engine._send_heartbeats.func  # type: ignore[attr-defined]  # a partial: see prefect_hooks
    assert inspect.signature(original).parameters["join_on_exit"].default is True
    monkeypatch.setattr(flow_engine, "_send_heartbeats", original)
    assert waited_for(monkeypatch) == [True]
    prefect_hooks.do_not_join_heartbeats()
    assert waited_for(monkeypatch) == [False]


def test_parameters_that_a_flow_does_not_take_come_to_it_all_the_same() -> None:
    run = FlowRun(flow_id=uuid4(), parameters={"rounds": 3})
    given = {"flow": nothing, "flow_run": run, "parameters": None}
    assert flow_engine._flow_parameters(**given) == {"rounds": 3}
    with pytest.raises(SignatureMismatchError):  # where it does not, Prefect has mended it, and ours can go
        inspect.unwrap(flow_engine._flow_parameters)(**given)


@pytest.mark.parametrize(
    ("how", "code", "said"), [("in turn", 0, "rows: 2"), ("as Prefect does", 1, "database is locked")]
)
def test_a_transaction_that_reads_and_then_writes_waits_for_its_turn(
    how: str, code: int, said: str, tmp_path: Path
) -> None:
    """The second case says what would happen otherwise: where it fails, Prefect has mended it, and ours can go."""
    done = subprocess.run(
        [sys.executable, "-c", TWO, str(tmp_path / "two.db"), how], cwd=ROOT, capture_output=True, text=True,
        env={**prefect_settings.DEFAULTS, "PYTHONPATH": str(ROOT), "PREFECT_HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert said in done.stdout + done.stderr


def test_a_prefect_that_is_built_otherwise_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_engine, "_send_heartbeats", lambda engine: None)
    with pytest.raises(RuntimeError, match=r"has no prefect\.flow_engine\._send_heartbeats"):
        prefect_hooks.do_not_join_heartbeats()
    monkeypatch.setattr(flow_engine, "_flow_parameters", lambda flow: {})
    with pytest.raises(RuntimeError, match=r"has no prefect\.flow_engine\._flow_parameters"):
        prefect_hooks.leave_parameters_to_the_flow()
    monkeypatch.delattr(flow_engine, "_send_heartbeats")
    with pytest.raises(RuntimeError, match=r"see flows\.rounds\.prefect_hooks"):
        prefect_hooks.do_not_join_heartbeats()
    import prefect.server.api.server as server
    from prefect.server.database import configurations

    monkeypatch.setattr(server, "create_app", lambda: None)
    with pytest.raises(RuntimeError, match="create_app"):
        prefect_hooks.add_route(lambda: pytest.fail("it is not made"))
    monkeypatch.delattr(configurations, "SQLITE_BEGIN_MODE")
    with pytest.raises(RuntimeError, match="BEGIN"):
        prefect_hooks.begin_immediate()


def test_prefect_is_reached_into_in_one_place() -> None:
    """Its private names, and its server's insides, are named in no other file of ours."""
    private = re.compile(r"prefect[\w.]*\._[a-z]|flow_engine\._|(import|from) (prefect\.server|sqlalchemy)")
    for folder in ("flows", "tasks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            code = "\n".join(
                line for line in path.read_text().splitlines() if "import" in line or "(" in line
            )
            if path.name != "prefect_hooks.py":
                assert not private.search(code), path
