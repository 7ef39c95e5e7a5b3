"""Durable files: either the whole file is there under its name, or nothing is, whenever the power goes.

Write to `tmp/`, fsync the file, move it to its name, fsync the folder. Errors of the operating system become
StoreErrors that say what to do.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

from data.errors import StoreError
from data.store.failpoints import failpoint

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+:-]{0,199}")

_REMEDY = "make the store writable for this user, or give another one with --store"


@contextlib.contextmanager
def storage_errors(path: Path, remedy: str = _REMEDY) -> Iterator[None]:
    """Turn an OSError into a StoreError that names `path` (or the file the system named) and the remedy.

    Args:
        path: what is read or written.
        remedy: what to do where `path` cannot be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            said = f"disk full at {path}; free space and run the same command again; nothing committed is lost"
        elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            said = f"cannot write {path}: {error.strerror}; {remedy}"
        else:  # any other of the system's errors
            said = f"cannot use {path}: {error.strerror or error}; check the store's folder"
        raise StoreError(said) from error


def inside(root: Path, relative: str) -> Path:
    """`root / relative` for a path that came from data.

    Raises StoreError: the path is absolute, climbs out with "..", or is not plain.
    """
    parts = relative.split("/")
    if not all(_NAME.fullmatch(part) for part in parts):
        raise StoreError(f"{relative!r} is not a path inside a store: it must be plain names joined by '/'")
    return root.joinpath(*parts)


def make_folder(folder: Path) -> None:
    """Create a folder and its parents so that they survive a crash."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    # Another process may create it at the same time; what matters is that it is there.
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "a file is where a folder should be", str(folder))
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Fsync a folder: names created, moved or removed in it are on disk afterwards."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(tmp: Path, target: Path, data: bytes, *, replace: bool) -> bool:
    """Put `data` at `target` in one step that a crash cannot divide.

    Args:
        tmp: folder for the unfinished file, on the same file system as `target`.
        target: where the file belongs.
        data: the whole content.
        replace: True puts it in the place of an older file; False leaves an existing file as it is.

    Returns:
        True if the file is now ours, False if one was there and `replace` is False.

    Raises:
        StoreError: the disk is full, the store is read-only, or another failure of the file system.
    """
    with storage_errors(target):
        make_folder(tmp)
        make_folder(target.parent)
        unfinished = tmp / f"{uuid.uuid4().hex}.tmp"
        try:
            with open(unfinished, "xb") as file:
                half = len(data) // 2
                file.write(data[:half])
                file.flush()
                failpoint("store.mid_write")
                file.write(data[half:])
                file.flush()
                os.fsync(file.fileno())
            if replace:
                os.replace(unfinished, target)
            else:
                # link, unlike rename, refuses to overwrite: of two writers exactly one wins.
                try:
                    os.link(unfinished, target)
                except FileExistsError:
                    return False
            sync_folder(target.parent)
        finally:
            # On a full disk the space is needed; after a kill `data.store.gc` does this.
            unfinished.unlink(missing_ok=True)
    return True


def remove(path: Path) -> None:
    """Remove a file so that it stays removed; a file that is not there is fine."""
    with storage_errors(path):
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            sync_folder(path.parent)
