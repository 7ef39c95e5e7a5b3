"""Crash points: how the tests stop the program at every durable step. They cost one look-up when unset.

    VIDLOOP_FAILPOINT=store.after_part:3 VIDLOOP_FAILPOINT_ACTION=kill vidloop round

stops the process at the third pass of that point. Actions: `kill` (SIGKILL, as the kernel would), `raise`
(RuntimeError), `enospc` (no space left on device) and `erofs` (read-only file system).
"""

from __future__ import annotations

import errno
import os
import signal
from collections import Counter

_passes: Counter[str] = Counter()


def reset() -> None:
    """Count passes from zero again, for tests that stay in one process."""
    _passes.clear()


def failpoint(name: str) -> None:
    """Mark a durable step called `name`; does nothing unless VIDLOOP_FAILPOINT names it.

    Raises:
        RuntimeError: action `raise`, or an action that does not exist.
        OSError: actions `enospc` and `erofs`.
    """
    wanted = os.environ.get("VIDLOOP_FAILPOINT")
    if not wanted:
        return
    point, _, nth = wanted.partition(":")
    if point != name:
        return
    _passes[name] += 1
    if _passes[name] != int(nth or 1):
        return
    action = os.environ.get("VIDLOOP_FAILPOINT_ACTION", "kill")
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "enospc":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
    elif action == "erofs":
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), name)
    raise RuntimeError(f"failpoint {wanted} (action {action})")
