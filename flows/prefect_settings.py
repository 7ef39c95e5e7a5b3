"""How Prefect is set. Apply it before Prefect is imported: it reads its environment once.

What the caller has set in the environment wins, except that nothing is pickled and nothing phones home.
"""

from __future__ import annotations

import os
import sys

# Facts behind the values are in docs/prefect.md.
DEFAULTS = {
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # 20 s are too few on a busy machine
    "PREFECT_SERVER_DATABASE_TIMEOUT": "60",  # SQLite with less loses task runs under parallel flows
    "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "60",
    "PREFECT_SERVER_API_HOST": "127.0.0.1",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # the terminal is ours; the UI has every line
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",  # a dead run is seen after three of these
}
ALWAYS = {
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "DO_NOT_TRACK": "1",
}


def apply() -> None:
    """Set the environment. Raises RuntimeError if Prefect was imported before, for then it is too late."""
    changes = {name: value for name, value in DEFAULTS.items() if name not in os.environ} | {
        name: value for name, value in ALWAYS.items() if os.environ.get(name) != value
    }
    if changes and "prefect" in sys.modules:
        raise RuntimeError(f"Prefect was imported before it was set ({', '.join(changes)})")
    os.environ.update(changes)
