"""Worker processes: each imports the libraries once, keeps its models resident, and takes one work at a time.

Works and what is said of them travel through pipes between this program's own processes; nothing is kept in
that form. A worker ends when the process that started it does, however that ended.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Self

from data.errors import VidloopError
from studies.plans import Work
from tasks.processes import begin_as_worker, child_environment, environment
from tasks.spread import ALL, visible


@dataclass(frozen=True)
class Finished:
    """A work that is done with.

    Attributes:
        error: why it failed; "" if it did not.
        died: the process ended in the middle of it, so that nothing is known of the work itself.
    """

    work: Work
    seconds: float
    error: str = ""
    died: bool = False


@dataclass
class _Worker:
    process: Any  # multiprocessing's spawn context has a process class of its own
    pipe: Connection
    device: str | None
    work: Work | None = None
    begun: float = 0.0


class Crew:
    """A context manager: workers live as long as it is entered."""

    def __init__(self, count: int, threads: int, devices: Sequence[str] = ()) -> None:
        """Start nothing yet.

        Args:
            count: processes.
            threads: of each, for the libraries that compute.
            devices: GPUs as CUDA_VISIBLE_DEVICES names them, given to the workers in turn; none: no GPU.
        """
        self._context = multiprocessing.get_context("spawn")
        self._count, self._threads, self._devices = count, threads, list(devices)
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        for index in range(self._count):
            device = self._devices[index % len(self._devices)] if self._devices else None
            self._workers.append(self._start(device))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.pipe.close()
            # One that is at work has been given up: everything it committed is kept.
            if worker.work is not None:
                worker.process.terminate()
        for worker in self._workers:
            worker.process.join(10)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()

    @property
    def pids(self) -> list[int]:
        """Process ids, for whoever watches."""
        return [worker.process.pid for worker in self._workers]

    @property
    def idle(self) -> int:
        """How many wait for work."""
        return sum(worker.work is None for worker in self._workers)

    @property
    def busy(self) -> int:
        """How many are at work."""
        return len(self._workers) - self.idle

    def give(self, work: Work) -> None:
        """Give `work` to a worker that is idle; there must be one."""
        worker = next(one for one in self._workers if one.work is None)
        worker.work, worker.begun = work, time.monotonic()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it died idle: `wait` will say so
            worker.pipe.send(work)

    def wait(self, timeout: float | None = None) -> list[Finished]:
        """Works that have ended since; at least one, if there is no time-out. Dead workers are replaced."""
        busy = [worker for worker in self._workers if worker.work is not None]
        by_pipe = {worker.pipe: worker for worker in busy}
        return [self._collect(by_pipe[ready]) for ready in wait(list(by_pipe), timeout)]  # type: ignore[index]  # only pipes were asked about

    def _collect(self, worker: _Worker) -> Finished:
        work, seconds = worker.work, time.monotonic() - worker.begun
        assert work is not None, "only workers at work are listened to"
        try:
            error: str = worker.pipe.recv()
        except (EOFError, ConnectionResetError):
            worker.process.join()
            reason = f"the worker process ended in the middle of it (exit code {worker.process.exitcode})"
            worker.pipe.close()
            self._workers[self._workers.index(worker)] = self._start(worker.device)
            return Finished(work, seconds, reason, died=True)
        worker.work = None
        return Finished(work, seconds, error)

    def _start(self, device: str | None) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=serve, args=(theirs, self._threads), daemon=True)
        with environment(child_environment(self._threads, device)):
            process.start()
        theirs.close()
        return _Worker(process, ours, device)


class Alone:
    """No crew: works are done in this process, one after the other; to look on with a debugger, say."""

    def __init__(self) -> None:
        self._work: Work | None = None

    @property
    def idle(self) -> int:
        """See `Crew`."""
        return int(self._work is None)

    @property
    def busy(self) -> int:
        """See `Crew`."""
        return int(self._work is not None)

    def give(self, work: Work) -> None:
        """See `Crew`; it is done when somebody waits for it."""
        self._work = work

    def wait(self, timeout: float | None = None) -> list[Finished]:
        """See `Crew`; it takes as long as the work does."""
        work, self._work = self._work, None
        if work is None:
            return []
        begun = time.monotonic()
        error = attempt(work)
        return [Finished(work, time.monotonic() - begun, error)]


def serve(pipe: Connection, threads: int) -> None:
    """What a worker does: works from `pipe` until it is closed; says "" or why a work failed."""
    begin_as_worker(threads)
    while True:
        try:
            work: Work = pipe.recv()
        except EOFError:
            return
        pipe.send(attempt(work))


def attempt(work: Work) -> str:
    """Do it; returns why it failed, "" if it did not."""
    try:
        work.run()
    except Exception as error:
        return str(error) if isinstance(error, VidloopError) else f"{type(error).__name__}: {error}"
    return ""


def gpus(device: str) -> list[str]:
    """The GPUs to share out under a recipe's `model.device`, as CUDA_VISIBLE_DEVICES names them.

    None for a CPU, and none for a device by number: then every worker uses the one that is named.
    """
    if device == "cpu" or (":" in device and device != ALL):
        return []
    return visible()
