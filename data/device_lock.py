"""One lock file a device: whoever computes on it holds it, and lets go by ending, however that happens.

The lock (flock) belongs to the open file, which processes started with `descriptors()` share: it is free when
the last of them has ended. So a run whose worker was killed keeps its device, and a judge's server that
outlives its run by a moment keeps it too. Within one machine and one user; nothing is written anywhere else.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from data.errors import ServiceError
from data.json_text import parse_json

# Environment variable: the folder of the locks.
FOLDER: Final = "VIDLOOP_LOCKS"
_LOOK_EVERY_S: Final = 0.5
_TELL_EVERY_S: Final = 60.0

_held: dict[str, int] = {}
_one_at_a_time = threading.Lock()


def hold(device: str, what: str, say: Callable[[str], None]) -> None:
    """Hold `device` until this process ends; waits while another process holds it.

    Args:
        device: its name.
        what: for whoever waits for us: what we are doing.
        say: told whom we wait for, once a minute.

    Raises:
        ServiceError: the lock's folder belongs to somebody else, or cannot be written, or has no locks.
    """
    with _one_at_a_time:
        if device in _held:
            return
        path = lock_file(device)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ServiceError(
                f"device lock {path}: {error.strerror}; {FOLDER} names another folder"
            ) from None
        begun = time.monotonic()
        told = begun - _TELL_EVERY_S
        while not _try(descriptor, path):
            if time.monotonic() - told >= _TELL_EVERY_S:
                told = time.monotonic()
                say(f"waiting for device {device}, which {holder(device) or 'another process'} holds")
            time.sleep(_LOOK_EVERY_S)
        if told >= begun:
            say(f"device {device} is free after {time.monotonic() - begun:.0f} s")
        facts = {"pid": os.getpid(), "what": what, "since": datetime.now(UTC).isoformat(timespec="seconds")}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(facts).encode(), 0)
        _held[device] = descriptor


def descriptors() -> tuple[int, ...]:
    """What a child process must inherit (`pass_fds`) to hold our devices for as long as it lives."""
    return tuple(_held.values())


def holder(device: str) -> str | None:
    """Who holds `device`, in words; None if nobody does."""
    path = lock_file(device)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        if _try(descriptor, path):
            return None
        said = parse_json(os.pread(descriptor, 4096, 0) or b"{}")
        return f"process {said['pid']} ({said['what']}, since {said['since']})"
    except (ValueError, KeyError, TypeError):
        return "a process that has just taken it"
    finally:
        os.close(descriptor)  # and with it the lock, if we got it


def lock_file(device: str) -> Path:
    """Where the lock of `device` lies.

    Raises ServiceError: the folder cannot be made, or belongs to somebody else.
    """
    named = os.environ.get(FOLDER)
    folder = Path(named) if named else Path(tempfile.gettempdir()) / f"vidloop-locks-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = folder.lstat().st_uid
    except OSError as error:
        raise ServiceError(
            f"device locks: {folder}: {error.strerror}; {FOLDER} names another folder"
        ) from None
    if not named and (owner != os.getuid() or folder.is_symlink()):
        raise ServiceError(f"device locks: {folder} belongs to somebody else; {FOLDER} names another folder")
    return folder / f"{device.replace(os.sep, '_')}.lock"


def _try(descriptor: int, path: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise ServiceError(
            f"device lock {path}: no locks on that disk ({error.strerror}); {FOLDER} names another folder"
        ) from None
    return True
