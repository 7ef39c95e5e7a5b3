"""Prefect's server, with transactions on SQLite that wait for their turn to write when they begin.

    python -m flows.serving.server --host HOST --port PORT      options of `prefect server start`

Prefect says BEGIN DEFERRED. Such a transaction that has read and then writes fails at once with "database is
locked", whatever the timeout, if another one has written in between (SQLITE_BUSY_SNAPSHOT,
https://sqlite.org/rescode.html#busy_snapshot); the more runs there are and the slower the machine, the more
often. BEGIN IMMEDIATE waits in line instead, up to the database timeout. Postgres never sees either.

Where $VIDLOOP_REPORTS names a store, the server shows the reports of its rounds (`flows.serving.reports`).
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from typing import Any

from flows.reporting.report_link import REPORTS
from flows.serving import reports


def write_in_turn() -> None:
    """Have every transaction on SQLite in this process begin IMMEDIATE; before the first one."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    event.listen(Engine, "before_cursor_execute", _at_once, retval=True)


def _at_once(
    connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
) -> tuple[str, Any]:
    return ("BEGIN IMMEDIATE" if statement == "BEGIN DEFERRED" else statement), parameters


def main(options: list[str]) -> None:
    """Be `prefect server start` with `options`."""
    write_in_turn()
    if shown := os.environ.get(REPORTS):
        reports.offer(Path(shown), os.environ["PREFECT_SERVER_API_AUTH_STRING"])
    sys.argv = ["prefect", "--no-prompt", "server", "start", *options]
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
