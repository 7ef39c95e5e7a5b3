"""Durable files: either the whole file is there under its name, or nothing is, whenever the power goes.

Write to `tmp/`, fsync the file, move it to its name, fsync the folder. Errors of the operating system become
StoreErrors that say what to do. What some file systems lack (hard links, fsync of folders, one disk for all
of a store) is done without where that is as safe, and said where not; `data.store.trials` tries it all.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import shlex
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from data.errors import StoreError
from data.store.failpoints import failpoint

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+:-]{0,199}")

_LACKING: Final = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
# link(2): EPERM of vfat and exfat, EMLINK of file systems that have one name a file.
_NO_LINKS: Final = _LACKING | {errno.EPERM, errno.EMLINK}
_NO_FOLDER_SYNC: Final = _LACKING | {errno.EBADF}
_NO_LOCKS: Final = _LACKING | {errno.ENOLCK}
# Of linux/fcntl.h and linux/fs.h.
_AT_FDCWD: Final = -100
_RENAME_NOREPLACE: Final = 1

_REMEDY = "make the store writable for this user, or give another one with --store"
# Folders whose names are on disk for certain, as far as this process knows.
_safe_folders: set[Path] = set()


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
            said = (
                f"disk full at {path}; free space and run the same command again; nothing committed is lost"
            )
        elif error.errno == errno.EACCES and path.is_file() and not _is_writable(path):
            ours = f"make it writable for this user (`chmod u+rw {shlex.quote(str(path))}`)"
            said = f"cannot write {path}: {error.strerror}; {ours}"
        elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            said = f"cannot write {path}: {error.strerror}; {remedy}"
        elif error.errno == errno.ENAMETOOLONG:
            said = (
                f"cannot use {path}: {error.strerror}: put the store at a shorter path, or on a file system "
                "that takes names of 80 characters"
            )
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


def _is_writable(path: Path) -> bool:
    return os.access(path, os.W_OK, effective_ids=True)


def make_folder(folder: Path) -> None:
    """Create a folder and its parents so that they survive a crash.

    One that is there may have been made a moment ago by a process that was killed before it was safe.
    """
    if folder.is_dir():
        if folder not in _safe_folders:
            # Of a folder that a person made in a place that we cannot read, that person takes care.
            with contextlib.suppress(PermissionError):
                sync_folder(folder.parent)
            _safe_folders.add(folder)
        return
    if folder.is_symlink():
        raise FileNotFoundError(
            errno.ENOENT, "the symbolic link leads to no folder; is its disk mounted?", str(folder)
        )
    make_folder(folder.parent)
    # Another process may create it at the same time; what matters is that it is there.
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "a file is where a folder should be", str(folder))
    sync_folder(folder.parent)
    _safe_folders.add(folder)


def sync_folder(folder: Path) -> bool:
    """Fsync a folder: names created, moved or removed in it are on disk afterwards.

    Returns:
        False if its file system cannot. Then a power cut may take names that were thought to be there; what
        they were the names of does not verify, and is computed again.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
        return False
    finally:
        os.close(descriptor)
    return True


def make_safe(path: Path) -> None:
    """See to it that a file that is there stays: who wrote it may have been killed before it was safe."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
    make_folder(path.parent)
    sync_folder(path.parent)


def write_durably(
    tmp: Path, target: Path, data: bytes, *, replace: bool, mode: int = 0o666, remedy: str = _REMEDY
) -> bool:
    """Put `data` at `target` in one step that a crash cannot divide.

    Args:
        tmp: folder for the unfinished file; where it and `target` are on different file systems, that file
            lies beside `target`.
        target: where the file belongs.
        data: the whole content.
        replace: True puts it in the place of an older file; False leaves an existing file as it is.
        mode: permissions of the file from its first moment on, less the process's mask.
        remedy: what to do where it cannot be written.

    Returns:
        True if the file is now ours, False if one was there and `replace` is False.

    Raises:
        StoreError: the disk is full, the store is read-only, or another failure of the file system.
    """
    with storage_errors(target, remedy):
        make_folder(tmp)
        make_folder(target.parent)
        if tmp.stat().st_dev == target.parent.stat().st_dev:
            try:
                return _write_by_way_of(tmp, target, data, replace, mode)
            except OSError as error:
                if error.errno != errno.EXDEV:  # of two mounts of one file system, too
                    raise
        return _write_by_way_of(target.parent, target, data, replace, mode)


def _write_by_way_of(folder: Path, target: Path, data: bytes, replace: bool, mode: int) -> bool:
    unfinished = folder / f"{uuid.uuid4().hex}.tmp"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(unfinished, flags, mode), "wb") as file:
            half = len(data) // 2
            file.write(data[:half])
            file.flush()
            failpoint("store.mid_write")
            file.write(data[half:])
            file.flush()
            os.fsync(file.fileno())
        if replace:
            os.replace(unfinished, target)
        elif not place(unfinished, target):
            make_safe(target)
            return False
        sync_folder(target.parent)
    finally:
        # On a full disk the space is needed; after a kill `data.store.gc` does this.
        unfinished.unlink(missing_ok=True)
    return True


def place(source: Path, target: Path) -> bool:
    """Give the file `source` the name `target`, unless that is taken: of two writers exactly one wins.

    Returns:
        False if it was taken. `source` may be gone afterwards, or not.

    Raises:
        StoreError: the file system has no way to do so.
        OSError: any other failure.
    """
    try:
        os.link(source, target)  # which, unlike rename, refuses to overwrite
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _rename_to_new(source, target)
    return True


def _rename_to_new(source: Path, target: Path) -> bool:
    """`place` by renameat2(2), for file systems without hard links."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # an old C library
        code = errno.ENOSYS
    else:
        names = os.fsencode(source), os.fsencode(target)
        if rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_NOREPLACE) == 0:
            return True
        code = ctypes.get_errno()
    if code == errno.EEXIST:
        return False
    if code in _LACKING:
        raise StoreError(
            f"{target.parent}: its file system has neither hard links nor a rename that overwrites nothing, "
            "so that of two runs that finish one unit both would win: put the store on another file system, "
            "with --store"
        )
    raise OSError(code, os.strerror(code), str(target))


def lock_file(descriptor: int, path: Path, wait: bool) -> bool:
    """Lock an open file against every other process, until it is closed or the process ends.

    Returns:
        False if another holds it and this one does not `wait`.

    Raises:
        StoreError: the file system of `path` has no locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        raise StoreError(
            f"{path.parent}: its file system has no locks ({error.strerror}), so that two nights, or two "
            "promotions, could work at once. On NFS start the lock service (rpc.statd), or mount with "
            "local_lock=flock if one machine alone uses the store; or make this folder a symbolic link to "
            "one on a disk of that machine; or put the store on another file system, with --store"
        ) from error
    return True


def is_folder(path: Path) -> bool:
    """Whether a folder lies at `path` itself, not behind a link."""
    return path.is_dir() and not path.is_symlink()


def remove(path: Path) -> None:
    """Remove a file, or a folder in its place, so that it stays removed; one that is not there is fine."""
    with storage_errors(path):
        if is_folder(path):
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        if path.parent.is_dir():
            sync_folder(path.parent)
