"""What every worker process of this program needs: its environment, its threads, and an end with its parent.

Units and what is said of them travel through pipes between this program's own processes; nothing is kept in
that form.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from typing import Final

# What of the visible GPUs a process may use.
DEVICES: Final = "CUDA_VISIBLE_DEVICES"
# Libraries that would otherwise each take every core; read when they are imported.
_THREADS: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def child_environment(threads: int, device: str | None) -> dict[str, str]:
    """Changes of the environment for a worker.

    Args:
        threads: of the libraries that compute.
        device: a GPU as CUDA_VISIBLE_DEVICES names it; None leaves it as it is.
    """
    return dict.fromkeys(_THREADS, str(threads)) | ({} if device is None else {DEVICES: device})


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


def begin_as_worker(threads: int) -> None:
    """A worker's first act: leave Ctrl-C to its parent, end with it, and take `threads` threads."""
    # Ctrl-C reaches the whole group; the process that started us decides what becomes of us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import cv2
    import torch

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker is started by another process"
    parent.join()
    os._exit(1)
