"""A folder that is there as a whole, with the digest of each of its files, or not at all."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from data.errors import ConfigError, StoreError
from data.keys import bytes_digest
from data.store.durable_files import lock_file, make_folder, storage_errors, sync_folder, write_durably
from data.store.failpoints import failpoint

SUMS: Final = "SHA256SUMS"
_REMEDY: Final = "make its folder writable for this user, or give another one with --bundle"


class Draft:
    """The folder in the making."""

    def __init__(self, target: Path, place: Path) -> None:
        self._target, self._place = target, place
        self._digests: dict[str, str] = {}

    def write(self, name: str, content: bytes | str) -> None:
        """Write a file.

        Args:
            name: its path in the folder, plain names joined by "/".
            content: text is written as UTF-8.

        Raises:
            StoreError: the disk is full, or the folder cannot be written.
        """
        data = content.encode("utf-8") if isinstance(content, str) else content
        with storage_errors(self._target / name, _REMEDY):
            write_durably(self._place, self._place / name, data, replace=True, remedy=_REMEDY)
            failpoint("bundle.after_file")
        self._digests[name] = bytes_digest(data)

    def sums(self) -> str:
        """Digest and name of every file, as `sha256sum -c` reads them."""
        return "".join(f"{digest}  {name}\n" for name, digest in sorted(self._digests.items()))


@contextmanager
def new_folder(target: Path) -> Iterator[Draft]:
    """Files that are written within lie in `target` afterwards, with their digests beside them.

    They are written beside it first, and moved to its name in one step. What fails leaves nothing; what a
    killed process left is removed.

    Args:
        target: a folder that is empty or not there yet.

    Raises:
        ConfigError: something else is at `target`.
        StoreError: the disk is full, or the folder cannot be written.
    """
    with storage_errors(target, _REMEDY):
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise ConfigError(f"{target} is there already and not an empty folder: name another")
        make_folder(target.parent)
        for left in target.parent.glob(f".{glob.escape(target.name)}-*.tmp"):
            _remove_abandoned(left)
        place = target.parent / f".{target.name}-{uuid.uuid4().hex[:8]}.tmp"
    at_work = None
    try:
        with storage_errors(target, _REMEDY):
            make_folder(place)
            at_work = _lock(place)
        draft = Draft(target, place)
        yield draft
        draft.write(SUMS, draft.sums())
        with storage_errors(target, _REMEDY):
            place.replace(target)
            sync_folder(target.parent)
    finally:
        shutil.rmtree(place, ignore_errors=True)  # once it has its name there is nothing here
        if at_work is not None:
            os.close(at_work)


def _lock(folder: Path) -> int | None:
    """A descriptor of the folder with its lock, which ends with the process; None if it cannot be had."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with contextlib.suppress(StoreError):  # a file system without locks
        if lock_file(descriptor, folder, wait=False):
            return descriptor
    os.close(descriptor)
    return None


def _remove_abandoned(place: Path) -> None:
    """Remove a folder that a killed process left; one in which somebody may be at work stays."""
    with contextlib.suppress(OSError):
        descriptor = _lock(place)
        if descriptor is not None:
            shutil.rmtree(place, ignore_errors=True)
            os.close(descriptor)
