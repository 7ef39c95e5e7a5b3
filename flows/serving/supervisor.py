"""Keeps the server and the workers running, and ends them all when standard input does.

    python -m flows.serving.supervisor FOLDER      what to keep: FOLDER/serve.json; auth string: environment

`vidloop serve` holds the other end of the pipe, so the kernel closes it after kill -9 as well. The flow run
of a killed worker becomes our child (PR_SET_CHILD_SUBREAPER); should this process be killed, the kernel ends
the server and the workers (PR_SET_PDEATHSIG), and `vidloop serve` what is left.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from data import processes
from data.errors import ServiceError, VidloopError
from flows.reporting.report_link import AUTH_VARIABLE
from flows.rounds.notify import NOTIFY_VARIABLE
from flows.serving.api_client import Refused, ask
from flows.serving.server_config import POOL, ServerConfig

START_S: Final = 900.0
# Flow runs get this long to tell the server that they end.
RUNS_END_S: Final = 20.0
SERVER_ENDS_S: Final = 15.0
# A process that ends at once is started again ever more slowly.
BACKOFF_S: Final = (1.0, 2.0, 5.0, 15.0, 30.0)
STEADY_S: Final = 60.0
LOG_LIMIT: Final = 64 * 2**20


@dataclass
class Supervised:
    """A process that is started again whenever it ends."""

    name: str
    command: list[str]
    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    begun: float = 0.0
    failures: int = 0
    due: float = 0.0

    def start(self) -> subprocess.Popen[bytes]:
        """Start it; what it says goes to its log."""
        self.process, self.begun = spawn(self.command, self.environment, self.log), time.monotonic()
        return self.process

    def watch(self) -> None:
        """Start it again, once its time has come, if it has ended; that is said."""
        if self.process is None:
            if time.monotonic() >= self.due:
                self.start()
        elif (code := self.process.poll()) is not None:
            steady = time.monotonic() - self.begun > STEADY_S
            self.failures = 0 if steady else self.failures + 1
            wait = BACKOFF_S[min(self.failures, len(BACKOFF_S) - 1)]
            self.process, self.due = None, time.monotonic() + wait
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            say(f"{self.name} ended ({how}); it starts again in {wait:.0f} s. Its log: {self.log}")


def say(line: str) -> None:
    """Tell the person at the terminal of `vidloop serve`."""
    print(line, flush=True)


def spawn(
    command: list[str], environment: dict[str, str], log: Path, *, speaks: bool = False
) -> subprocess.Popen[bytes]:
    """Start a process that dies with this one, in a session of its own: Ctrl-C is not for it.

    Its standard error goes into `log`, and its standard output unless it `speaks`, to a person.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LOG_LIMIT:
        os.replace(log, log.with_suffix(".log.1"))
    with open(log, "ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=None if speaks else output,
            stderr=output,
            env=environment,
            preexec_fn=processes.die_with_parent,
            start_new_session=True,
        )


def worker_command(device: str) -> list[str]:
    """A worker that plays one run at a time."""
    named = ["--pool", POOL, "--type", "process", "--name", f"vidloop-{device}", "--limit", "1"]
    return [sys.executable, "-m", "prefect", "--no-prompt", "worker", "start", *named]


def bootstrap_command(config: ServerConfig) -> list[str]:
    """What makes the server fit for our flows."""
    said = ["--store", config.store, "--workers", str(len(config.devices))]
    nights = ["--nightly", config.nightly, "--timezone", config.timezone]
    return [sys.executable, "-m", "flows.serving.bootstrap", *said, *nights]


class Supervisor:
    """The server, the workers, and how they begin and end."""

    def __init__(self, config: ServerConfig, auth: str) -> None:
        self._config, self._auth = config, auth
        self.stop = threading.Event()  # set, it has `run` return
        address = ["--host", config.host, "--port", str(config.port)]
        self._server = Supervised(
            "the server",
            [sys.executable, "-m", "flows.serving.server", *address],
            config.server_environment(auth),
            config.log("server"),
        )
        self._workers = [
            Supervised(
                f"the worker of {device}",
                worker_command(device),
                config.worker_environment(auth, device),
                config.worker_log(device),
            )
            for device in config.devices
        ]

    def run(self) -> None:
        """Start everything and keep it until `stop`; nothing is left when this returns.

        Raises:
            ServiceError: the server or the bootstrap did not succeed at the start.
        """
        try:
            if not self._until_it_answers(self._server.start()) or not self._bootstrap():
                return
            for worker in self._workers:
                worker.start()
            what = ", ".join(self._config.devices)
            say(f"Prefect UI: {self._config.ui}    workers: {what}    store: {self._config.store}")
            while not self.stop.wait(0.5):
                self._reap()
                for kept in (self._server, *self._workers):
                    kept.watch()
        finally:
            self._end()

    def _end(self) -> None:
        """End flow runs and workers first, the server last: it must hear how they ended."""
        own, below = self._server.process, processes.descendants
        spared = {own.pid, *below(own.pid)} if own is not None else set()
        processes.end(lambda: set(below(os.getpid())) - spared, RUNS_END_S)
        processes.end(lambda: below(os.getpid()), SERVER_ENDS_S)

    def _until_it_answers(self, process: subprocess.Popen[bytes]) -> bool:
        """Wait for the server; False if it was told to stop before."""
        log = self._server.log

        def ready() -> bool:
            with contextlib.suppress(OSError, ValueError):
                ask(self._config.api, "/admin/version", self._auth, timeout_s=5)
                return True
            return False

        try:
            return processes.wait_until_ready(process, ready, START_S, self.stop)
        except ChildProcessError as error:
            raise ServiceError(f"the server: {error}: {processes.last_error(log)}. Its log: {log}") from None
        except TimeoutError as error:
            raise ServiceError(f"the server: {error}. Its log: {log}") from None
        except Refused as refused:
            raise ServiceError(
                f"what answers at {self._config.api} is not our server ({refused}). "
                "Is the port taken? --port chooses another"
            ) from None

    def _bootstrap(self) -> bool:
        """Create what the server must know; False if it was told to stop before."""
        log = self._config.log("bootstrap")
        log.unlink(missing_ok=True)  # it says what this start found
        environment = self._config.client_environment(self._auth)
        if notify := os.environ.get(NOTIFY_VARIABLE):
            environment[NOTIFY_VARIABLE] = notify
        process = spawn(bootstrap_command(self._config), environment, log, speaks=True)
        while process.poll() is None:
            if self.stop.wait(0.1):
                return False
        if process.returncode != 0:
            raise ServiceError(f"the bootstrap failed: {processes.last_error(log)}. Its log: {log}")
        return True

    def _reap(self) -> None:
        """Take the exit codes of orphans; those of our own are for `watch`."""
        own = {kept.process.pid for kept in (self._server, *self._workers) if kept.process is not None}
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if found.si_pid in own:
                    return
                os.waitpid(found.si_pid, 0)


def main(folder: str) -> int:
    """Keep what FOLDER says; its exit code."""
    config = ServerConfig.load(folder)
    if config is None:
        print(f"{folder} holds no serve.json", file=sys.stderr)
        return 2
    supervisor = Supervisor(config, os.environ[AUTH_VARIABLE])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: supervisor.stop.set())
    processes.adopt_orphans()
    processes.on_parent_exit(lambda _: supervisor.stop.set())
    try:
        supervisor.run()
    except VidloopError as error:
        print(f"vidloop: {error}", file=sys.stderr, flush=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
