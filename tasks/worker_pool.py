"""Worker processes: each imports the libraries once, keeps its models, and runs one job in each of its slots.

Jobs, and the errors they raise, travel through pipes between this program's own processes; nothing is kept in
that form. What jobs share goes to each worker once (`tasks.shared`). A worker ends when the process that
started it does, however that ended.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pickle
import queue
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Final, Protocol

from data import processes
from tasks.shared import Gift, pickled

log = logging.getLogger("vidloop.tasks")

# What of the visible GPUs a process may use.
DEVICES: Final = "CUDA_VISIBLE_DEVICES"
# Libraries that would otherwise each take every core; read when they are imported.
_THREADS: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# How long workers may take to end.
JOIN_S: Final = 10.0


class Job(Protocol):
    """What can be run here or in a worker: a unit, for example. It can be pickled."""

    def run(self) -> Any:
        """Compute what is missing and commit it; what it returns can be pickled too."""


class WorkerDied(ConnectionError):
    """A worker process ended in the middle of a job, of which nothing is known."""


@dataclass
class _Worker:
    device: str | None
    process: Any  # multiprocessing's spawn context has a process class of its own
    given: set[str] = field(default_factory=set)
    giving: threading.Lock = field(default_factory=threading.Lock)


@dataclass
class _Slot:
    """Room for one job at a time in one worker."""

    worker: _Worker
    pipe: Connection


class WorkerPool:
    """Worker processes. Jobs may be given to it from any thread."""

    def __init__(self, devices: Sequence[str | None], slots: int, threads: int) -> None:
        """Start nothing yet: `start` or the first job does.

        Args:
            devices: a worker for each: a GPU as CUDA_VISIBLE_DEVICES names it, or None for what we see.
            slots: jobs that one worker runs at a time.
            threads: of each worker, for the libraries that compute.
        """
        self._devices, self._slots, self._threads = list(devices), slots, threads
        self._context = multiprocessing.get_context("spawn")
        self._lock = threading.Lock()
        self._idle: queue.SimpleQueue[_Slot] = queue.SimpleQueue()
        self._workers: list[_Worker] = []

    def start(self) -> None:
        """Start all workers, if that has not happened yet."""
        with self._lock:
            if self._workers:
                return
            started = [self._start(device) for device in self._devices]
            # The first slot of every worker before the second of any: all GPUs have work at once.
            for row in zip(*started, strict=True):
                for slot in row:
                    self._idle.put(slot)

    def run(self, job: Job) -> Any:
        """Run `job` in the worker that has been idle longest; returns or raises what it did there.

        Raises WorkerDied: its process ended; another has taken its place.
        """
        self.start()
        slot = self._send(job)
        try:
            answer, error = slot.pipe.recv()
        except (EOFError, ConnectionError):
            self._replace(slot)
            code = slot.worker.process.exitcode
            raise WorkerDied(f"{_name(slot.worker)} ended in the middle of it (exit code {code})") from None
        self._idle.put(slot)
        if error is not None:
            raise error
        return answer

    def close(self, timeout_s: float = JOIN_S) -> None:
        """End all workers; the next job would start them again.

        Args:
            timeout_s: for workers that still run a job, which has been given up: what it committed is kept.
        """
        with self._lock:
            while not self._idle.empty():
                self._idle.get().pipe.close()  # a worker ends when all of its pipes are closed
            workers, self._workers = self._workers, []
            deadline = time.monotonic() + timeout_s
            for worker in workers:
                worker.process.join(max(0.0, deadline - time.monotonic()))
                if worker.process.is_alive():
                    worker.process.kill()
                    worker.process.join()

    def _send(self, job: Job) -> _Slot:
        """Give `job` to a slot of a worker that lives."""
        data, needed = pickled(job)
        while True:
            slot = self._idle.get()
            try:
                with slot.worker.giving:
                    for one in needed:
                        if one.digest not in slot.worker.given:
                            slot.pipe.send(Gift(one.value))
                            slot.pipe.recv()
                            slot.worker.given.add(one.digest)
                slot.pipe.send_bytes(data)
            except (ConnectionError, EOFError):  # it died idle
                self._replace(slot)
            else:
                return slot

    def _start(self, device: str | None) -> list[_Slot]:
        pipes = [self._context.Pipe() for _ in range(self._slots)]
        process = self._context.Process(
            target=serve, args=([theirs for _, theirs in pipes], self._threads), daemon=True
        )
        changes = dict.fromkeys(_THREADS, str(self._threads)) | ({} if device is None else {DEVICES: device})
        with environment(changes):
            process.start()
        for _, theirs in pipes:
            theirs.close()
        worker = _Worker(device, process)
        self._workers.append(worker)
        return [_Slot(worker, ours) for ours, _ in pipes]

    def _replace(self, slot: _Slot) -> None:
        """Start a new worker, with slots of its own, in place of the dead one that `slot` belongs to."""
        slot.pipe.close()
        with self._lock:
            dead = slot.worker
            if dead in self._workers:
                dead.process.join(JOIN_S)
                log.warning(
                    "%s ended (exit code %s); a new one takes its place",
                    _name(dead), dead.process.exitcode,
                )  # fmt: skip
                self._workers.remove(dead)
                for fresh in self._start(dead.device):
                    self._idle.put(fresh)


def _name(worker: _Worker) -> str:
    return "the worker process" if worker.device is None else f"the process of GPU {worker.device}"


# The environment is the whole process's: two threads that start children would give each other's.
_changing: Final = threading.RLock()


@contextlib.contextmanager
def environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Within: changed variables, for one thread at a time. A child inherits them as they are at its start."""
    with _changing:
        before = {name: os.environ.get(name) for name in changes}
        os.environ.update(changes)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def serve(pipes: Sequence[Connection], threads: int) -> None:
    """What a worker does: jobs from each of `pipes` until it is closed.

    It answers (what the job returned, None) or (None, what failed).
    """
    # Ctrl-C reaches the whole group; the process that started us decides what becomes of us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    processes.on_parent_exit(lambda _: os._exit(1))
    import cv2
    import torch

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    slots = [threading.Thread(target=_serve_slot, args=(pipe,), name="job") for pipe in pipes]
    for slot in slots:
        slot.start()
    for slot in slots:
        slot.join()


def _serve_slot(pipe: Connection) -> None:
    while True:
        try:
            job: Job = pipe.recv()
        except (EOFError, ConnectionError):
            return
        answer, failure = None, None
        try:
            answer = job.run()
        except Exception as error:
            failure = _portable(error)
        pipe.send((answer, failure))


def _portable(error: Exception) -> Exception:
    """`error`, or one that says the same, if it does not survive a pipe."""
    try:
        copied = pickle.loads(pickle.dumps(error))  # noqa: S301  (made here, one line up)
    except Exception:
        copied = None
    return error if type(copied) is type(error) else RuntimeError(f"{type(error).__name__}: {error}")
