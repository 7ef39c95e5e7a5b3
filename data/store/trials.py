"""What a store asks of its file systems, tried on the very folders: for `Store.open`, and for `doctor`.

A store may lie on several: `media` may be a symbolic link to another disk, or a mount of its own.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from data.errors import StoreError
from data.store.backend import Trial
from data.store.durable_files import lock_file, make_folder, place, storage_errors, sync_folder

# The longest name that is ever written: an adapter's.
_LONGEST_NAME: Final = len(f"{'0' * 64}.safetensors")
_FOLDERS: Final = ("manifests", "parts", "media", "rounds", "improvements", "runs", "scratch", "locks", "tmp")
# What is younger than a day is no garbage; a file server's clock may be wrong by much less.
_CLOCK_S: Final = 3600.0
_UNSYNCED: Final = "what is written just before a power cut may have to be computed again"
_working: set[Path] = set()


def require_working(root: Path) -> None:
    """Raise StoreError if a store at `root` lacks something that it needs. Tried once a process."""
    if root in _working:
        return
    for trial in trials(root):
        if trial.fault and trial.needed:
            raise StoreError(trial.fault)
    _working.add(root)


def trials(root: Path) -> Iterator[Trial]:
    """Try all that a store does, in its folders; nothing stays of it but the folder of locks.

    Args:
        root: the store's folder, which exists.

    Raises:
        StoreError: it cannot be looked at.
    """
    for name, folder in file_systems(root).items():
        yield from _tried_alone(name, folder)
    manifests = next(path for path in (root / "manifests", root / "tmp", root) if path.is_dir())
    yield _tried("of two writers one wins", manifests, _place)
    yield _tried("processes lock each other out", root / "locks", _lock)


def _tried_alone(name: str, folder: Path) -> Iterator[Trial]:
    """What is tried on each file system; `name`: the folder of the store that lies there, "" for the root."""
    at = f" in {name}" if name else ""
    if name:
        lies = "behind a symbolic link, which gc does not follow" if folder.is_symlink() else "mounted there"
        yield _tried(f"{name} is on another file system, {lies}", folder, make_folder)
    written = _tried(f"files are written{at}", folder, _write)
    yield written
    if written.fault:  # nothing else will do there
        return
    yield _tried(f"files are replaced{at}", folder, _replace)
    synced = _tried(f"folders are synced{at}", folder, _sync)
    if synced.fault == _UNSYNCED:
        yield Trial(f"folders are not synced{at}: {_UNSYNCED}")
    else:
        yield synced
    yield _tried(f"times of files are the clock's{at}", folder, _time, needed=False)


def file_systems(root: Path) -> dict[str, Path]:
    """Where a store's file systems can be tried, by the first of its folders on each, "" for the root's own.

    Symbolic links that lead nowhere are among them.
    """
    with storage_errors(root):
        device, tmp = root.stat().st_dev, root / "tmp"
        # Not the root itself, if that can be: what a crash leaves in tmp/ is garbage.
        found = {"": tmp if tmp.is_dir() and tmp.stat().st_dev == device else root}
        devices = {device}
        for name in _FOLDERS:
            folder = root / name
            if folder.exists():
                device = folder.stat().st_dev
                if device not in devices:
                    devices.add(device)
                    found[name] = folder
            elif folder.is_symlink():
                found[name] = folder
        return found


def _tried(what: str, folder: Path, act: Callable[[Path], str | None], needed: bool = True) -> Trial:
    try:
        with storage_errors(folder):
            return Trial(what, act(folder) or "", needed)
    except StoreError as error:
        return Trial(what, str(error))


@contextlib.contextmanager
def _file(folder: Path, name: str = "{}.tmp") -> Iterator[Path]:
    """A file of some bytes, synced, gone afterwards."""
    path = folder / name.format(uuid.uuid4().hex)
    try:
        with open(path, "xb") as file:
            file.write(b"vidloop")
            file.flush()
            os.fsync(file.fileno())
        yield path
    finally:
        path.unlink(missing_ok=True)


def _write(folder: Path) -> None:
    # Should we be killed, its name says that it is garbage.
    with _file(folder, "{}" + "0" * (_LONGEST_NAME - 32 - len(".tmp")) + ".tmp"):
        pass


def _replace(folder: Path) -> None:
    with _file(folder) as old, _file(folder) as new:
        os.replace(new, old)


def _sync(folder: Path) -> str | None:
    return None if sync_folder(folder) else _UNSYNCED


def _time(folder: Path) -> str | None:
    with _file(folder) as path:
        os.utime(path)
        ahead = path.stat().st_mtime - time.time()
    if abs(ahead) < _CLOCK_S:
        return None
    return (
        f"{folder}: times of files differ from this machine's clock by {abs(ahead) / 3600:.1f} h, and "
        "`vidloop gc` goes by them: set both clocks (NTP)"
    )


def _place(folder: Path) -> str | None:
    with _file(folder) as first, _file(folder) as second, _file(folder) as third:
        third.unlink()
        if place(first, third) and not place(second, third):
            return None
    return (
        f"{folder}: a file that is there is overwritten: put the store on another file system, with --store"
    )


def _lock(folder: Path) -> str | None:
    make_folder(folder)
    with _file(folder) as path:
        descriptors = [os.open(path, os.O_RDWR | os.O_CLOEXEC) for _ in range(2)]
        try:
            if [lock_file(one, path, wait=False) for one in descriptors] == [True, False]:
                return None
        finally:
            for one in descriptors:
                os.close(one)
    return f"{folder}: locks are given to two at once: put the store on another file system, with --store"
