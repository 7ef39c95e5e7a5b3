"""What can be wrong with a server and its workers, in words, each with what to do. For `vidloop doctor`."""

from __future__ import annotations

import importlib.metadata
import os
import socket
import sqlite3
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from packaging.requirements import Requirement

from data import device_lock
from data.errors import UserError
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
    fine: bool
    remedy: str = ""


def check_serving(folder: str) -> Iterator[Finding]:
    """Look at the pins, at the server of `folder` if there is one, and at what PREFECT_API_URL names."""
    yield from check_pins()
    try:
        config = ServerConfig.load(folder)
    except UserError as error:
        yield Finding(folder, False, str(error))
        return
    named = os.environ.get("PREFECT_API_URL")
    if config is None:
        yield Finding(f"no server has been started in {folder} yet; `make serve` does", True)
    else:
        yield from _check_served(config)
    if named and (config is None or named.rstrip("/") != config.api):
        yield from _check_server(named.rstrip("/"), os.environ.get(AUTH_VARIABLE), AUTH_VARIABLE)


def check_pins() -> Iterator[Finding]:
    """Whether the releases that are installed are those that vidloop asks for."""
    for requirement in (one for one in _requirements() if one.name in _PINNED):
        held = importlib.metadata.version(requirement.name)
        yield Finding(
            f"{requirement.name} {held} is within {requirement.specifier}",
            requirement.specifier.contains(held, prereleases=True),
            "Prefect's server does not work with it: install that release (`make setup` does, in a checkout)",
        )


def _requirements() -> list[Requirement]:
    """What vidloop's distribution asks for; its pyproject.toml where it is on PYTHONPATH alone."""
    try:
        said = importlib.metadata.requires("vidloop") or []
    except importlib.metadata.PackageNotFoundError:
        with open(INSTALLED / "pyproject.toml", "rb") as file:
            said = tomllib.load(file)["project"]["dependencies"]
    return [Requirement(line) for line in said]


def _check_served(config: ServerConfig) -> Iterator[Finding]:
    try:
        auth = read_auth(config.auth_file)
    except UserError as error:
        yield Finding("auth string", False, str(error))
        return
    yield from _check_database(config)
    answers = True
    for finding in _check_server(config.api, auth, str(config.auth_file)):
        answers = answers and finding.fine
        yield finding
    if answers:
        yield from _check_pool(config, auth)
        yield from _check_automations(config, auth)
    for device in config.devices:
        holder = device_lock.holder(device)
        yield Finding(f"device {device}: {f'held by {holder}' if holder else 'free'}", True)


def _check_server(api: str, auth: str | None, where: str) -> Iterator[Finding]:
    """Whether a Prefect server answers at `api`, and takes the auth string."""
    try:
        version = ask(api, "/admin/version", auth)
    except Refused as refused:
        if refused.status == 401:
            yield Finding(
                f"server {api}",
                False,
                f"it refuses the auth string of {where}: if another server has the port, give --port"
                if auth
                else f"it wants an auth string: export {AUTH_VARIABLE}",
            )
        else:
            yield Finding(f"server {api}", False, f"what answers there is no Prefect server ({refused})")
    except ValueError:
        yield Finding(
            f"server {api}", False, "another program has the port: end it, or give `vidloop serve --port`"
        )
    except OSError as error:
        yield Finding(f"server {api}", False, _silence(api, error))
    else:
        yield Finding(f"server {api} answers: Prefect {version}", True)


def _silence(api: str, error: OSError) -> str:
    """What it means that nothing came back."""
    address = urlsplit(api)
    try:
        socket.create_connection((address.hostname or "", address.port or 80), timeout=5).close()
    except OSError:
        return "nobody listens there: start it with `make serve`"
    return f"it takes connections and does not answer ({error}): it is starting, overloaded, or not Prefect"


def _check_database(config: ServerConfig) -> Iterator[Finding]:
    """Whether SQLite can be written; another database is the server's own business."""
    path = Path(config.folder) / "prefect" / "prefect.db"
    if not path.exists():
        return
    try:
        database = sqlite3.connect(path, timeout=_LOCK_PATIENCE_S, isolation_level=None)
        try:
            database.execute("BEGIN IMMEDIATE")
            database.execute("ROLLBACK")
        finally:
            database.close()
    except sqlite3.Error as error:
        yield Finding(
            f"database {path}",
            False,
            f"{error}: another process has kept it for {_LOCK_PATIENCE_S:.0f} s. End what else has it open "
            f"(`fuser {path}` names it), or use Postgres for many runs at a time (docs/prefect.md)",
        )
    else:
        yield Finding(f"database {path} can be written", True)


def _check_pool(config: ServerConfig, auth: str) -> Iterator[Finding]:
    try:
        pool = ask(config.api, f"/work_pools/{POOL}", auth)
    except Refused:
        yield Finding(
            f"work pool {POOL}", False, "it is missing: start `vidloop serve` again, which makes it"
        )
        return
    yield Finding(
        f"work pool {POOL} is open",
        not pool["is_paused"],
        f"it is paused, nothing starts: resume it in the UI ({config.ui}/work-pools)",
    )
    queues = ask(config.api, f"/work_pools/{POOL}/queues/filter", auth, body={})
    for queue in queues:
        if queue["name"] in QUEUES and queue["is_paused"]:
            yield Finding(f"queue {queue['name']}", False, "it is paused: resume it in the UI")
    workers = ask(config.api, f"/work_pools/{POOL}/workers/filter", auth, body={})
    online = [worker["name"] for worker in workers if worker["status"] == "ONLINE"]
    yield Finding(
        f"{len(online)} of {len(config.devices)} workers poll: {', '.join(sorted(online)) or 'none'}",
        len(online) >= len(config.devices),
        f"runs wait for ever: see {Path(config.folder) / 'logs'}; start `vidloop serve` again if it ended",
    )


def _check_automations(config: ServerConfig, auth: str) -> Iterator[Finding]:
    held: list[dict[str, Any]] = ask(config.api, "/automations/filter", auth, body={})
    ours = [one for one in held if one["name"].startswith("vidloop:")]
    off = [one["name"] for one in ours if not one["enabled"]]
    yield Finding(
        f"{len(ours)} automations watch over runs",
        bool(ours) and not off,
        f"switched off: {'; '.join(off)}. Runs whose process is gone keep their slot"
        if off
        else "they are missing: start `vidloop serve` again, which makes them",
    )
