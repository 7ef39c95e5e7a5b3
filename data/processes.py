"""Child processes: how they are started, watched and ended. The one place for it.

    python -P data/processes.py FOLDER COMMAND...    run COMMAND, and end it when standard input ends

Three ways to end with the parent, however that ended (also by SIGKILL):

    ServerProcess, on_parent_exit   the child reads a pipe that the kernel closes at the parent's end
    die_with_parent                 the kernel signals a child that does not read (PR_SET_PDEATHSIG)
    adopt_orphans, end_all          a supervisor becomes the parent of its descendants' orphans
                                    (PR_SET_CHILD_SUBREAPER), so that none escapes it

Linux only. Standard library only, and none of our own modules: as a script this file runs by its path,
outside all packages.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
# Between SIGTERM and SIGKILL.
GRACE_S = 10.0
_TAIL_BYTES = 20_000


class ServerProcess:
    """A server that this process starts: it reads standard input and ends when that does.

    Closing the pipe, at the latest by the kernel when this process ends, is how it is told to stop.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str],
        cwd: Path | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        """Start `command`; it answers later, see `wait`.

        Args:
            command: program and arguments.
            log: file that takes its output; replaced if it exists.
            environment: all of its environment variables.
            cwd: its working directory; None: ours.
            pass_fds: descriptors that it inherits.
        """
        self.log = log
        with open(log, "wb") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=environment,
                pass_fds=tuple(pass_fds),
                # Ctrl-C is for us; the server is needed until we have ended.
                start_new_session=True,
            )
        atexit.register(self.stop)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process is still there."""
        return self._process.poll() is None

    def wait(self, ready: Callable[[], bool], timeout_s: float) -> None:
        """See `wait_until_ready`."""
        wait_until_ready(self._process, ready, timeout_s)

    def stop(self, timeout_s: float = GRACE_S, word: bytes = b"") -> None:
        """End it; may be called twice.

        Args:
            timeout_s: SIGKILL after this time.
            word: written into its standard input before that is closed.
        """
        atexit.unregister(self.stop)
        pipe = self._process.stdin
        assert pipe is not None
        with contextlib.suppress(BrokenPipeError, ValueError):  # it has ended already, or was stopped before
            if word:
                pipe.write(word)
                pipe.flush()
        with contextlib.suppress(BrokenPipeError):
            pipe.close()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def wait_until_ready(
    process: subprocess.Popen[bytes],
    ready: Callable[[], bool],
    timeout_s: float,
    stop: threading.Event | None = None,
) -> bool:
    """Poll `ready` until it is true.

    Returns:
        False if `stop` was set before.

    Raises:
        ChildProcessError: the process ended before.
        TimeoutError: it was not ready in time.
    """
    stop = stop or threading.Event()
    deadline = time.monotonic() + timeout_s
    while not stop.is_set():
        if process.poll() is not None:
            raise ChildProcessError("it ended before it answered")
        if ready():
            return True
        if time.monotonic() >= deadline:
            raise TimeoutError(f"it did not answer within {timeout_s:.0f} s")
        stop.wait(0.1)
    return False


def tail(log: Path, size: int = _TAIL_BYTES) -> str:
    """The last `size` bytes of a log, as text without surrounding white space."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            return file.read().decode(errors="replace").strip()
    except OSError as error:
        return f"its log cannot be read ({error.strerror})"


def last_error(log: Path) -> str:
    """The line of a log that says most about why its process ended: the last that names an error."""
    lines = tail(log).splitlines() or ["it printed nothing"]
    telling = (line for word in ("Error", "error", "") for line in reversed(lines) if word in line)
    return next(telling).strip()[:400]


def on_parent_exit(act: Callable[[bytes], object]) -> None:
    """In a thread of its own, call `act` once the process that started this one has ended.

    A process of `multiprocessing` watches its parent; any other reads standard input, which must be a pipe
    from the parent. `act` gets what came through the pipe.
    """
    parent = multiprocessing.parent_process()

    def watch() -> None:
        received = b""
        if parent is None:
            while block := os.read(0, 4096):
                received += block
        else:
            parent.join()
        act(received)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def die_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when the thread that started it ends (a `preexec_fn`)."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends, so that `descendants` still finds them."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def descendants(pid: int) -> list[int]:
    """Every living process below `pid`."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if fields[0] != "Z":
                    children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = list(children.get(pid, ()))
    for one in found:
        found += children.get(one, ())
    return found


def end_all() -> None:
    """End every descendant of this process."""
    end(lambda: descendants(os.getpid()), GRACE_S)
    with contextlib.suppress(ChildProcessError):  # so that not even an entry in the process table outlives us
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def end(living: Callable[[], Iterable[int]], grace_s: float) -> None:
    """SIGTERM, after `grace_s` SIGKILL, to all processes that `living` names, until it names none.

    Args:
        living: called again and again, so that processes which are started meanwhile are ended too.
        grace_s: between the two signals; to SIGKILL, at most 5 s are waited for the processes to go.
    """
    for number, patience in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 5.0)):
        signalled: set[int] = set()
        deadline = time.monotonic() + patience
        while (pids := set(living())) and time.monotonic() < deadline:
            for pid in pids - signalled:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            signalled |= pids
            time.sleep(0.05)


def supervise(folder: str, command: Sequence[str]) -> int:
    """Run `command` until it ends or standard input does; its exit code. No descendant is left.

    Args:
        folder: removed when standard input ends without a word: a word means that somebody wants to read the
            log in it. Where the command ends by itself, the folder stays.
        command: program and arguments.
    """
    leaving = threading.Event()

    def leave(word: bytes) -> None:
        leaving.set()
        end_all()
        if not word:
            shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)

    # Ctrl-C is for the process that started us, which closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: leave(b""))
    adopt_orphans()
    # Should this process itself be killed, the command gets SIGTERM from the kernel.
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent, start_new_session=True
    )
    on_parent_exit(leave)
    code = child.wait()
    if leaving.is_set():  # in the other thread, which has the folder still to remove
        threading.Event().wait()
    end_all()
    return code


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(supervise(sys.argv[1], sys.argv[2:]))
