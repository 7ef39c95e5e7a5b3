"""Command `serve`: Prefect's server with everything that vidloop needs on it, until Ctrl-C."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Annotated, Final

import typer

from data import processes
from data.errors import ConfigError
from data.store import backend_of
from flows.cli.app import answers, app
from flows.cli.options import StoreOption
from flows.reporting.messages import DEFAULT_STORE
from flows.rounds.notify import NOTIFY_VARIABLE, check_address
from flows.serving.devices import devices
from flows.serving.server_config import DEFAULT_FOLDER, DEFAULT_PORT, LOOPBACK, ServerConfig

# Longer than the supervisor takes at most: it ends flow runs, workers and server in turn.
_STOP_S: Final = 60.0


@app.command("serve")
@answers
def serve_command(
    folder: Annotated[
        str, typer.Option("--folder", help="Everything of the server: database, auth string, logs.")
    ] = DEFAULT_FOLDER,
    store: StoreOption = DEFAULT_STORE,
    port: Annotated[
        int, typer.Option("--port", min=1, max=65535, help="Of the UI and the API.")
    ] = DEFAULT_PORT,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; others than loopback let others in.")
    ] = LOOPBACK,
    device: Annotated[
        list[str] | None,
        typer.Option(
            "--device", help="Give this device a worker, any number of times; default: every GPU, or cpu."
        ),
    ] = None,
    recipes: Annotated[
        list[str] | None, typer.Option("--recipes", help="A folder with more recipes for the run forms.")
    ] = None,
    notify: Annotated[
        str | None,
        typer.Option(
            "--notify",
            envvar=NOTIFY_VARIABLE,
            show_envvar=True,
            help="Web address told of every verdict and every failed round; a secret.",
        ),
    ] = None,
    nightly: Annotated[
        str,
        typer.Option(
            "--nightly", metavar="CRON", help='Switch the nights on: "0 2 * * *" is every night at two.'
        ),
    ] = "",
    timezone: Annotated[
        str, typer.Option("--timezone", help="Of --nightly, for example Europe/Berlin.")
    ] = "UTC",
) -> None:
    """Serve the Prefect UI with all deployments and a worker for each device, until Ctrl-C."""
    folders = [Path(name).expanduser().absolute() for name in recipes or ()]
    for path in folders:
        if not path.is_dir():
            raise ConfigError(f"--recipes {path}: there is no such folder")
    if nightly:
        _check_nightly(nightly, timezone)
    if notify:
        check_address(notify)
    root = Path(folder).expanduser().absolute()
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(f"{root} cannot be made: {error.strerror}. --folder names another") from None
    config = ServerConfig(
        folder=str(root),
        host=host,
        port=port,
        store=backend_of(store).url,
        devices=devices(device or ()),
        recipes=tuple(map(str, folders)),
        nightly=nightly,
        timezone=timezone,
    )
    _stay_alone(root)
    _check_port(host, port)
    config.save()
    auth, new = config.auth()
    _tell(config, auth, new)
    environment = config.client_environment(auth) | ({NOTIFY_VARIABLE: notify} if notify else {})
    if code := keep(config, environment):
        raise typer.Exit(code)


def keep(config: ServerConfig, environment: dict[str, str]) -> int:
    """Run the supervisor until it ends or a signal comes; its exit code. No process is left."""
    processes.adopt_orphans()
    supervisor = subprocess.Popen(
        [sys.executable, "-m", "flows.serving.supervisor", config.folder],
        stdin=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    told: list[float] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if not told:
            print("stopping: runs in progress end, what they finished is kept", flush=True)
            assert supervisor.stdin is not None
            supervisor.stdin.close()
        told.append(time.monotonic())

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    try:
        while not told or time.monotonic() < told[0] + _STOP_S:
            with contextlib.suppress(subprocess.TimeoutExpired):
                supervisor.wait(0.5)
                break
    finally:
        processes.end_all()
    code = supervisor.returncode
    return 0 if told else 3 if code is None or code < 0 else code


def _tell(config: ServerConfig, auth: str, new: bool) -> None:
    if config.host not in (LOOPBACK, "localhost", "::1"):
        print(
            f"warning: {config.host} is not loopback: whoever reaches port {config.port} with the auth "
            "string starts runs"
        )
    if not new:
        told = f"The auth string is the one in {config.auth_file}"
    elif sys.stdout.isatty():
        told = f"The UI asks for this once: {auth}\n    (not shown again; {config.auth_file} keeps it)"
    else:
        # This goes into a file or a journal, where it must not be.
        told = f"The auth string that the UI asks for is in {config.auth_file}"
    print(told, flush=True)


def _stay_alone(root: Path) -> None:
    """One `vidloop serve` a folder; the lock goes with the process."""
    descriptor = os.open(root / "serve.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(
            f"{root}: another `vidloop serve` works here; end it, or give --folder and --port"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{root}: its file system has no locks ({error.strerror}); give --folder on another disk"
        ) from None


def _check_nightly(cron: str, timezone: str) -> None:
    from flows.serving import prefect_settings

    prefect_settings.apply()
    from prefect.client.schemas.schedules import CronSchedule

    try:
        CronSchedule(cron=cron, timezone=timezone)
    except ValueError:
        raise ConfigError(
            f"--nightly {cron!r} --timezone {timezone!r}: say cron's five fields (minute hour day month "
            "weekday) and a time zone such as Europe/Berlin"
        ) from None


def _check_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        raise ConfigError(
            f"port {port} of {host} is not free ({error.strerror}): end what listens there, or give --port"
        ) from None
