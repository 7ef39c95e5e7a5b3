"""One stage on all GPUs of this machine: a process for each, which keeps its models, in place of this one.

A recipe asks for it with `model.device: cuda:all`. Every process sees one GPU and works on as many units at a
time as the recipe has workers, as a round on one GPU does: while one batch is computed, another is written.
Units are cut before they are shared out, so a clip does not depend on how many GPUs there were.

Processes start with the first unit that must be computed and end with the stage: the memory they held is
free for what comes next.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Final, Protocol, runtime_checkable

from data.threads import cores
from tasks.processes import DEVICES, begin_as_worker, child_environment, environment

log = logging.getLogger("vidloop.tasks")

# `model.device` of a recipe that wants every GPU.
ALL: Final = "cuda:all"
_JOIN_S: Final = 10.0


class Runs(Protocol):
    """What can be run here or elsewhere: a unit."""

    def run(self) -> None:
        """Compute what is missing and commit it."""


@runtime_checkable
class Spreads(Protocol):
    """A unit that may be run in another process, one with a GPU of its own."""

    @property
    def spreads(self) -> bool:
        """Whether this one may: not if it needs what only this process has, such as a judge's server."""


@dataclass
class _Slot:
    """Room for one unit at a time in one process."""

    worker: _Worker
    pipe: Connection


@dataclass
class _Worker:
    device: str
    process: Any  # multiprocessing's spawn context has a process class of its own


class Crew:
    """The processes of a stage. Units may be given to it from any thread."""

    def __init__(self, devices: Sequence[str], slots: int, threads: int) -> None:
        """Start nothing yet.

        Args:
            devices: GPUs as CUDA_VISIBLE_DEVICES names them; a process each.
            slots: units that one process works on at a time.
            threads: of each process, for the libraries that compute.
        """
        self._devices, self._slots, self._threads = list(devices), slots, threads
        self._context = multiprocessing.get_context("spawn")
        self._lock = threading.Lock()
        self._idle: queue.SimpleQueue[_Slot] = queue.SimpleQueue()
        self._workers: list[_Worker] = []

    def run(self, unit: Runs) -> None:
        """Run `unit` in the process that has been idle longest. Raises what it raised there.

        Raises:
            ConnectionError: the process ended in the middle of it; another has taken its place.
        """
        with self._lock:
            if not self._workers:
                self._start_all()
        slot = self._take(unit)
        try:
            error: BaseException | None = slot.pipe.recv()
        except (EOFError, ConnectionError):
            self._replace(slot)
            raise ConnectionError(
                f"the process of GPU {slot.worker.device} ended in the middle of it"
            ) from None
        self._idle.put(slot)
        if error is not None:
            raise error

    def close(self) -> None:
        """End all processes; the next unit would start them again."""
        with self._lock:
            while not self._idle.empty():
                self._idle.get().pipe.close()
            for worker in self._workers:
                # Idle ones end by themselves now; one at work has been given up, and what it kept stays.
                worker.process.join(_JOIN_S)
                if worker.process.is_alive():
                    worker.process.kill()
                    worker.process.join()
            self._workers = []

    def _take(self, unit: Runs) -> _Slot:
        """Give `unit` to a slot of a process that lives."""
        while True:
            slot = self._idle.get()
            try:
                slot.pipe.send(unit)
            except ConnectionError:  # it died idle
                self._replace(slot)
            else:
                return slot

    def _start_all(self) -> None:
        started = [self._start(device) for device in self._devices]
        # The first slot of every process before the second of any: all GPUs have work at once.
        for row in zip(*started, strict=True):
            for slot in row:
                self._idle.put(slot)

    def _start(self, device: str) -> list[_Slot]:
        pipes = [self._context.Pipe() for _ in range(self._slots)]
        process = self._context.Process(
            target=serve, args=([theirs for _, theirs in pipes], self._threads), daemon=True
        )
        with environment(child_environment(self._threads, device)):
            process.start()
        for _, theirs in pipes:
            theirs.close()
        worker = _Worker(device, process)
        self._workers.append(worker)
        return [_Slot(worker, ours) for ours, _ in pipes]

    def _replace(self, slot: _Slot) -> None:
        """A slot of a dead process: a new process takes the place of that one, with slots of its own."""
        slot.pipe.close()
        with self._lock:
            dead = slot.worker
            if dead in self._workers:
                dead.process.join(_JOIN_S)
                log.warning(
                    "the process of GPU %s ended (exit code %s); a new one takes its place",
                    dead.device, dead.process.exitcode,
                )  # fmt: skip
                self._workers.remove(dead)
                for fresh in self._start(dead.device):
                    self._idle.put(fresh)


_crew: Crew | None = None


@contextmanager
def spread_over(devices: Sequence[str], slots: int) -> Iterator[None]:
    """Within: units that spread run in a process for each of `devices`; with fewer than two, all run here."""
    global _crew
    if len(devices) < 2:
        yield
        return
    assert _crew is None, "one stage at a time"
    _crew = Crew(devices, slots, threads=max(1, cores() // len(devices)))
    try:
        yield
    finally:
        crew, _crew = _crew, None
        crew.close()


def run(unit: Runs) -> None:
    """Run `unit` where it belongs. Raises what it raises."""
    if _crew is None:
        unit.run()
    elif isinstance(unit, Spreads) and unit.spreads:
        _crew.run(unit)
    else:
        _crew.close()  # it may need the memory that the others hold
        unit.run()


def gpus(device: str) -> list[str]:
    """The GPUs that a recipe's `model.device` wants shared out, by their names in CUDA_VISIBLE_DEVICES."""
    return visible() if device == ALL else []


def visible() -> list[str]:
    """Every GPU that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count = torch.cuda.device_count()
    named = [name for name in os.environ.get(DEVICES, "").split(",") if name]
    return named if len(named) == count else [str(index) for index in range(count)]


def serve(pipes: Sequence[Connection], threads: int) -> None:
    """What a process does: units from each of `pipes` until it is closed; answers None or what failed."""
    begin_as_worker(threads)
    slots = [threading.Thread(target=_serve_one, args=(pipe,), name="unit") for pipe in pipes]
    for slot in slots:
        slot.start()
    for slot in slots:
        slot.join()


def _serve_one(pipe: Connection) -> None:
    while True:
        try:
            unit: Runs = pipe.recv()
        except (EOFError, ConnectionError):
            return
        failure: BaseException | None = None
        try:
            unit.run()
        except Exception as error:
            failure = _portable(error)
        pipe.send(failure)


def _portable(error: Exception) -> Exception:
    """`error`, or one that says the same, if it does not survive a pipe."""
    try:
        copied = pickle.loads(pickle.dumps(error))  # noqa: S301  (made here, one line up)
    except Exception:
        copied = None
    return error if type(copied) is type(error) else RuntimeError(f"{type(error).__name__}: {error}")
