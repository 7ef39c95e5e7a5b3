"""Keeps the server and the workers running, and ends them all when standard input does.

    python -m flows.serving.supervisor FOLDER      what to keep: FOLDER/serve.json; auth string: the
    environment

`vidloop serve` holds the other end of the pipe, so the kernel closes it after kill -9 as well. The flow run
of a killed worker becomes our child (PR_SET_CHILD_SUBREAPER); should this process be killed, the kernel ends
the server and the workers (PR_SET_PDEATHSIG), and `vidloop serve` what is left. Standard library and our own
small files only: it stays small for as long as it runs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from data import processes
from data.errors import ServiceError, VidloopError
from flows.reporting.report_link import AUTH_VARIABLE
from flows.serving.api_client import Refused, ask
from flows.serving.server_config import NOTE, POOL, ServerConfig

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

    def start(self) -> None:
        """Start it; what it says goes to its log."""
        self.process = spawn(self.command, self.environment, self.log)
        self.begun = time.monotonic()

    def watch(self) -> str | None:
        """Start it again if it has ended and its time has come; what happened, in words, if anything did."""
        if self.process is None:
            if time.monotonic() >= self.due:
                self.start()
            return None
        code = self.process.poll()
        if code is None:
            return None
        steady = time.monotonic() - self.begun > STEADY_S
        self.failures = 0 if steady else self.failures + 1
        wait = BACKOFF_S[min(self.failures, len(BACKOFF_S) - 1)]
        self.process, self.due = None, time.monotonic() + wait
        return f"{self.name} ended ({_how(code)}); it starts again in {wait:.0f} s. Its log: {self.log}"


def spawn(command: list[str], environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start a process that dies with this one, in a session of its own: Ctrl-C is not for it."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LOG_LIMIT:
        os.replace(log, log.with_suffix(".log.1"))
    with open(log, "ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            preexec_fn=processes.die_with_parent,
            start_new_session=True,
        )


def server_command(config: ServerConfig) -> list[str]:
    """Prefect's server in one process."""
    return [sys.executable, "-m", "flows.serving.server", "--host", config.host, "--port", str(config.port)]


def worker_command(device: str) -> list[str]:
    """A worker that plays one run at a time."""
    named = ["--pool", POOL, "--type", "process", "--name", f"vidloop-{device}", "--limit", "1"]
    return [sys.executable, "-m", "prefect", "--no-prompt", "worker", "start", *named]


class Supervisor:
    """The server, the workers, and how they begin and end."""

    def __init__(self, config: ServerConfig, auth: str, say: Callable[[str], None]) -> None:
        self._config, self._auth, self._say = config, auth, say
        self._stop = threading.Event()
        server = config.server_environment(auth)
        self._server = Supervised("the server", server_command(config), server, config.log("server"))
        self._workers = [
            Supervised(
                f"the worker of {device}",
                worker_command(device),
                config.worker_environment(auth, device),
                config.worker_log(device),
            )
            for device in config.devices
        ]

    def stop(self) -> None:
        """Have `run` return; from any thread or signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Start everything and keep it until `stop`; nothing is left when this returns.

        Raises:
            ServiceError: the server or the bootstrap did not succeed at the start.
        """
        try:
            self._server.start()
            if not self._until_it_answers() or not self._bootstrap():
                return
            for worker in self._workers:
                worker.start()
            what = ", ".join(self._config.devices)
            self._say(f"Prefect UI: {self._config.ui}    workers: {what}    store: {self._config.store}")
            while not self._stop.wait(0.5):
                self._reap()
                for kept in (self._server, *self._workers):
                    happened = kept.watch()
                    if happened:
                        self._say(happened)
        finally:
            self.end()

    def end(self) -> None:
        """End flow runs and workers first, the server last: it must hear how they ended."""
        own, below = self._server.process, processes.descendants
        spared = {own.pid, *below(own.pid)} if own is not None else set()
        processes.end(lambda: set(below(os.getpid())) - spared, RUNS_END_S)
        processes.end(lambda: below(os.getpid()), SERVER_ENDS_S)

    def _until_it_answers(self) -> bool:
        """Wait for the server; False if it was told to stop before."""
        log, process = self._config.log("server"), self._server.process
        assert process is not None

        def ready() -> bool:
            with contextlib.suppress(OSError, ValueError):
                ask(self._config.api, "/admin/version", self._auth, timeout_s=5)
                return True
            return False

        try:
            return processes.wait_until_ready(process, ready, START_S, self._stop)
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
        command = [sys.executable, "-m", "flows.serving.bootstrap", self._config.folder]
        process = spawn(command, self._config.client_environment(self._auth), log)
        while process.poll() is None:
            if self._stop.wait(0.1):
                return False
        if process.returncode != 0:
            raise ServiceError(f"the bootstrap failed: {processes.last_error(log)}. Its log: {log}")
        for note in notes(log):
            self._say(note)
        return True

    def _reap(self) -> None:
        """Take the exit codes of orphans; those of our own are for `watch`."""
        own = {kept.process.pid for kept in (self._server, *self._workers) if kept.process is not None}
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if found.si_pid in own:
                    return
                os.waitpid(found.si_pid, 0)


def notes(log: Path) -> list[str]:
    """What the bootstrap has to say to a person."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line.removeprefix(NOTE) for line in lines if line.startswith(NOTE)]


def _how(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def main(folder: str) -> int:
    """Keep what FOLDER says; its exit code."""
    config = ServerConfig.load(folder)
    if config is None:
        print(f"{folder} holds no serve.json", file=sys.stderr)
        return 2
    supervisor = Supervisor(config, os.environ[AUTH_VARIABLE], lambda line: print(line, flush=True))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: supervisor.stop())
    processes.adopt_orphans()
    processes.on_parent_exit(lambda _: supervisor.stop())
    try:
        supervisor.run()
    except VidloopError as error:
        print(f"vidloop: {error}", file=sys.stderr, flush=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
