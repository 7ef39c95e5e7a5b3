"""Works of a study, several at a time in worker processes, or one after the other in this one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Self

from data.errors import VidloopError
from studies.plans import Work
from tasks.spread import ALL, visible
from tasks.worker_pool import JOIN_S, WorkerDied, WorkerPool


@dataclass(frozen=True)
class Finished:
    """A work that has ended.

    Attributes:
        error: why it failed; "" if it did not.
        died: its process ended in the middle of it, so that nothing is known of the work itself.
    """

    work: Work
    seconds: float
    error: str = ""
    died: bool = False


class Crew:
    """Takes works and says when they have ended; its workers live as long as the context that it is."""

    def __init__(self, count: int, threads: int, devices: Sequence[str] = ()) -> None:
        """Start nothing yet.

        Args:
            count: worker processes; 0: works are done in this process, to look on with a debugger, say.
            threads: of each, for the libraries that compute.
            devices: GPUs as CUDA_VISIBLE_DEVICES names them, given to the workers in turn; none: no GPU.
        """
        given = [devices[index % len(devices)] if devices else None for index in range(count)]
        self._pool = WorkerPool(given, 1, threads) if count else None
        self.size = max(1, count)
        self._threads = ThreadPoolExecutor(self.size, thread_name_prefix="work")
        self._futures: set[Future[Finished]] = set()

    def __enter__(self) -> Self:
        if self._pool is not None:
            self._pool.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._pool is not None:
            # What is at work has been given up: everything it committed is kept.
            self._pool.close(0.0 if self.busy else JOIN_S)

    @property
    def busy(self) -> int:
        """How many works have been given and not been waited for; at most `size`."""
        return len(self._futures)

    def give(self, work: Work) -> None:
        """Begin `work`; there must be an idle worker. Without workers it is done here and now."""
        if self._pool is None:
            done = Future[Finished]()
            done.set_result(attempt(work))
            self._futures.add(done)
        else:
            self._futures.add(self._threads.submit(attempt, work, self._pool))

    def wait(self) -> list[Finished]:
        """Works that have ended; at least one."""
        done, self._futures = wait(self._futures, return_when=FIRST_COMPLETED)
        return [future.result() for future in done]


def attempt(work: Work, pool: WorkerPool | None = None) -> Finished:
    """Do `work`, in a worker of `pool` if there is one."""
    begun = time.monotonic()
    try:
        work.run() if pool is None else pool.run(work)
    except Exception as error:
        reason = (
            str(error) if isinstance(error, VidloopError | WorkerDied) else f"{type(error).__name__}: {error}"
        )
        return Finished(work, time.monotonic() - begun, reason, isinstance(error, WorkerDied))
    return Finished(work, time.monotonic() - begun)


def gpus(device: str) -> list[str]:
    """The GPUs to share out under a recipe's `model.device`, as CUDA_VISIBLE_DEVICES names them.

    None for a CPU, and none for a device by number: then every worker uses the one that is named.
    """
    if device == "cpu" or (":" in device and device != ALL):
        return []
    return visible()
