"""Runs a command and ends it, with all its descendants, when whoever started us is gone.

    python -P supervisor.py FOLDER COMMAND...      ends when standard input does, and removes FOLDER

The kernel closes the pipe at the run's end, also after kill -9. Should this process itself be killed, the
command gets SIGTERM from the kernel (PR_SET_PDEATHSIG). Orphans of the command become our children
(PR_SET_CHILD_SUBREAPER), so that none escapes. Standard library only: it runs
by its path, outside all packages.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
GRACE_S = 10.0

# Set while `_leave` is at work, which ends the process itself.
_leaving = threading.Event()


def descendants(pid: int) -> list[int]:
    """Every living process below `pid`."""
    below: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if fields[0] != "Z":
                    below.setdefault(int(fields[1]), []).append(int(entry.name))
    found, waiting = [], [pid]
    while waiting:
        children = below.get(waiting.pop(), [])
        found += children
        waiting += children
    return found


def end_all() -> None:
    """SIGTERM to every descendant, SIGKILL to those that are still there after `GRACE_S`."""
    deadline = time.monotonic() + GRACE_S
    for sign in (signal.SIGTERM, signal.SIGKILL):
        for pid in descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sign)
        while descendants(os.getpid()) and time.monotonic() < deadline:
            _reap()
            time.sleep(0.05)
        deadline = time.monotonic() + GRACE_S
    _reap()  # so that not even an entry in the process table outlives us


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def die_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when the one that started it ends."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends, so that `descendants` still finds them."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def main(folder: str, command: list[str]) -> int:
    """Run `command` until it ends or standard input does; its exit code.

    `folder` is removed when standard input ends without a word: a word means that somebody wants to read the
    log in it. Where the command ends by itself, the folder stays.
    """
    # Ctrl-C is for the run, which tells us by closing the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: _leave(folder, keep=False))
    adopt_orphans()
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent, start_new_session=True
    )
    threading.Thread(target=_watch, args=(folder,), daemon=True).start()
    code = child.wait()
    if _leaving.is_set():  # in the other thread, which has the folder still to remove
        threading.Event().wait()
    end_all()
    return code


def _watch(folder: str) -> None:
    keep = False
    while os.read(0, 4096):
        keep = True
    _leave(folder, keep)


def _leave(folder: str, keep: bool) -> None:
    _leaving.set()
    end_all()
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
