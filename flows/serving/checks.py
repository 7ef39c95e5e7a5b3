"""What can be wrong with a server and its workers, in words, each with what to do. For `vidloop doctor`."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import socket
import sqlite3
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from packaging.requirements import Requirement

from data import device_lock
from data.errors import VidloopError
from data.resources import INSTALLED
from flows.reporting.report_link import AUTH_VARIABLE
from flows.serving.api_client import Refused, ask
from flows.serving.server_config import POOL, QUEUES, ServerConfig, read_auth

# Prefect's server works with these releases only; docs/prefect.md says what breaks with others.
_PINNED: Final = ("prefect", "fastapi", "sqlalchemy")
_LOCK_PATIENCE_S: Final = 5.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `remedy` is what to do if it is not `fine`."""

    what: str
    fine: bool = True
    remedy: str = ""


def tried(what: str, look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """What `look` finds; that it ends with an error of ours is a finding too."""
    try:
        yield from look()
    except VidloopError as error:
        yield Finding(what, False, str(error))


def check_serving(folder: str) -> Iterator[Finding]:
    """Look at the pins, at the server of `folder` if there is one, and at what PREFECT_API_URL names."""
    yield from check_pins()
    yield from tried(folder, lambda: _check_servers(folder))


def check_pins() -> Iterator[Finding]:
    """Whether the releases that are installed are those that vidloop asks for."""
    try:
        said = importlib.metadata.requires("vidloop") or []
    except importlib.metadata.PackageNotFoundError:  # on PYTHONPATH alone
        said = tomllib.loads((INSTALLED / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    for requirement in (one for one in map(Requirement, said) if one.name in _PINNED):
        held = importlib.metadata.version(requirement.name)
        yield Finding(
            f"{requirement.name} {held} is within {requirement.specifier}",
            requirement.specifier.contains(held, prereleases=True),
            "Prefect's server does not work with it: install that release (`make setup` does, in a checkout)",
        )


def _check_servers(folder: str) -> Iterator[Finding]:
    config = ServerConfig.load(folder)
    if config is None:
        yield Finding(f"no server has been started in {folder} yet; `make serve` does")
    else:
        yield from tried("auth string", lambda: _check_served(config, read_auth(config.auth_file)))
    named = os.environ.get("PREFECT_API_URL", "").rstrip("/")
    if named and (config is None or named != config.api):
        yield _check_server(named, os.environ.get(AUTH_VARIABLE), AUTH_VARIABLE)


def _check_served(config: ServerConfig, auth: str) -> Iterator[Finding]:
    yield from _check_database(Path(config.folder) / "prefect" / "prefect.db")
    server = _check_server(config.api, auth, str(config.auth_file))
    yield server
    if server.fine:
        yield from _check_pool(config, auth)
        yield _check_automations(config, auth)
    for device in config.devices:
        holder = device_lock.holder(device)
        yield Finding(f"device {device}: {f'held by {holder}' if holder else 'free'}")


def _check_server(api: str, auth: str | None, where: str) -> Finding:
    """Whether a Prefect server answers at `api`, and takes the auth string."""
    try:
        return Finding(f"server {api} answers: Prefect {ask(api, '/admin/version', auth)}")
    except Refused as refused:
        if refused.status != 401:
            why = f"what answers there is no Prefect server ({refused})"
        elif auth:
            why = f"it refuses the auth string of {where}: if another server has the port, give --port"
        else:
            why = f"it wants an auth string: export {AUTH_VARIABLE}"
    except ValueError:
        why = "another program has the port: end it, or give `vidloop serve --port`"
    except OSError as error:
        why = _silence(api, error)
    return Finding(f"server {api}", False, why)


def _silence(api: str, error: OSError) -> str:
    """What it means that nothing came back."""
    address = urlsplit(api)
    try:
        socket.create_connection((address.hostname or "", address.port or 80), timeout=5).close()
    except OSError:
        return "nobody listens there: start it with `make serve`"
    return f"it takes connections and does not answer ({error}): it is starting, overloaded, or not Prefect"


def _check_database(path: Path) -> Iterator[Finding]:
    """Whether SQLite can be written; another database is the server's own business."""
    if not path.exists():
        return
    try:
        connected = sqlite3.connect(path, timeout=_LOCK_PATIENCE_S, isolation_level=None)
        with contextlib.closing(connected) as database:
            database.execute("BEGIN IMMEDIATE")
            database.execute("ROLLBACK")
        yield Finding(f"database {path} can be written")
    except sqlite3.Error as error:
        yield Finding(
            f"database {path}",
            False,
            f"{error}: another process has kept it for {_LOCK_PATIENCE_S:.0f} s. End what else has it open "
            f"(`fuser {path}` names it), or use Postgres for many runs at a time (docs/prefect.md)",
        )


def _check_pool(config: ServerConfig, auth: str) -> Iterator[Finding]:
    try:
        pool = ask(config.api, f"/work_pools/{POOL}", auth)
    except Refused:
        missing = "it is missing: start `vidloop serve` again, which makes it"
        yield Finding(f"work pool {POOL}", False, missing)
        return
    yield Finding(
        f"work pool {POOL} is open",
        not pool["is_paused"],
        f"it is paused, nothing starts: resume it in the UI ({config.ui}/work-pools)",
    )
    for queue in ask(config.api, f"/work_pools/{POOL}/queues/filter", auth, body={}):
        if queue["name"] in QUEUES and queue["is_paused"]:
            yield Finding(f"queue {queue['name']}", False, "it is paused: resume it in the UI")
    workers = ask(config.api, f"/work_pools/{POOL}/workers/filter", auth, body={})
    online = [worker["name"] for worker in workers if worker["status"] == "ONLINE"]
    yield Finding(
        f"{len(online)} of {len(config.devices)} workers poll: {', '.join(sorted(online)) or 'none'}",
        len(online) >= len(config.devices),
        f"runs wait for ever: see {Path(config.folder) / 'logs'}; start `vidloop serve` again if it ended",
    )


def _check_automations(config: ServerConfig, auth: str) -> Finding:
    held: list[dict[str, Any]] = ask(config.api, "/automations/filter", auth, body={})
    ours = [one for one in held if one["name"].startswith("vidloop:")]
    off = [one["name"] for one in ours if not one["enabled"]]
    return Finding(
        f"{len(ours)} automations watch over runs",
        bool(ours) and not off,
        f"switched off: {'; '.join(off)}. Runs whose process is gone keep their slot"
        if off
        else "they are missing: start `vidloop serve` again, which makes them",
    )
