"""Two transactions of Prefect's own kind on one SQLite file, each reading before it writes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from flows.serving import prefect_settings
from tests.tiny_round import ROOT

TWO = """
import asyncio
import sys

from flows.serving.server import write_in_turn

if sys.argv[2] == "in turn":
    write_in_turn()

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
