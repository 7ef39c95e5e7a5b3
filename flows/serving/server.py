"""Prefect's server as we run it: see `flows.rounds.prefect_hooks` for what is otherwise, and why.

    python -m flows.serving.server --host HOST --port PORT      options of `prefect server start`

Transactions on SQLite begin IMMEDIATE. Where $VIDLOOP_REPORTS names a store, the server shows the reports of
its rounds (`flows.serving.reports`).
"""

from __future__ import annotations

import os
import runpy
import sys

from flows.reporting.report_link import REPORTS
from flows.rounds import prefect_hooks
from flows.serving import reports


def main(options: list[str]) -> None:
    """Be `prefect server start` with `options`."""
    prefect_hooks.begin_immediate()
    if shown := os.environ.get(REPORTS):
        auth = os.environ["PREFECT_SERVER_API_AUTH_STRING"]
        prefect_hooks.add_route(lambda: reports.route(shown, auth))
    sys.argv = ["prefect", "--no-prompt", "server", "start", *options]
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
