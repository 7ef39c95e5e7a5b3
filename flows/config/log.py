"""The log: of the flow run that this is a part of, else the program's own."""

from __future__ import annotations

import logging
import sys


def logger() -> logging.Logger | logging.LoggerAdapter[logging.Logger]:
    """Prefect's logger of the run, where a flow runs; else `vidloop`, which the command line prints."""
    if "prefect" in sys.modules:
        from prefect.exceptions import MissingContextError
        from prefect.logging import get_run_logger

        try:
            return get_run_logger()
        except MissingContextError:
            pass
    return logging.getLogger("vidloop")
