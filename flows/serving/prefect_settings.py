"""How Prefect is set. Apply it before Prefect is imported: it reads its environment once.

What the caller has set in the environment wins, except that nothing is pickled and nothing phones home.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from data.errors import ConfigError
from flows.serving.api_client import Refused, ask

# Facts behind the values are in docs/prefect.md.
DEFAULTS = {
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # 20 s are too few on a busy machine
    "PREFECT_SERVER_DATABASE_TIMEOUT": "60",  # SQLite with less loses task runs under parallel flows
    "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "60",
    # Task runs are written together, at most a second late: one by one is half of what the server computes.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
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


def named_server() -> str | None:
    """The server's API that the environment, or one of Prefect's own files, says to use."""
    if os.environ.get("PREFECT_API_URL"):
        return os.environ["PREFECT_API_URL"]
    home = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()
    if not any(path.exists() for path in (home / "profiles.toml", Path("prefect.toml"), Path(".env"))):
        return None
    from prefect.settings import get_current_settings

    return get_current_settings().api.url


def check_server(url: str) -> None:
    """Raise ConfigError if nothing answers at `url`, or if what answers refuses our auth string.

    Any other answer will do: what it means is for Prefect to say.
    """
    place = urlsplit(url)
    port = place.port or (443 if place.scheme == "https" else 80)
    try:
        socket.create_connection((place.hostname or "", port), timeout=10).close()
    except OSError as error:
        raise ConfigError(
            f"no Prefect server answers at {url} ({error}): start it with `prefect server start`, unset "
            "PREFECT_API_URL to use a temporary one, or give --plain to do without Prefect"
        ) from error
    if all(_refuses(url, auth) for auth in _auth_strings()):
        raise ConfigError(
            f"the Prefect server at {url} refuses the auth string: export PREFECT_API_AUTH_STRING. "
            "`vidloop serve` keeps its own in the file `auth` of its folder"
        )


def _auth_strings() -> Iterator[str | None]:
    """The environment's, and then what stands in one of Prefect's own files."""
    yield os.environ.get("PREFECT_API_AUTH_STRING")
    from prefect.settings import get_current_settings

    if held := get_current_settings().api.auth_string:
        yield held.get_secret_value()


def _refuses(url: str, auth: str | None) -> bool:
    try:
        ask(url.rstrip("/"), "/admin/version", auth)
    except Refused as refused:
        return refused.status == 401
    except (OSError, ValueError):
        pass
    return False
