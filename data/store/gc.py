"""Garbage: files that no manifest reaches. Nothing else is ever removed.

A file is reachable if any committed manifest names it. What a unit at work has written is young and not yet
named; `min_age_s` protects it, and a file that a unit finds and uses again is made young (see
`Store.write_media`). Between the look at a file's age and its end a unit may do so: a file is therefore moved
aside first, looked at again, and put back if it is young now.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from data.store import Store
from data.store.durable_files import remove, storage_errors

SAFE_AGE_S: Final = 24 * 3600.0
_PATTERNS: Final = ("media/*/*", "parts/*/*/*/*.parquet", "scratch/*/**/*", "tmp/*.tmp")


@dataclass(frozen=True, slots=True)
class Garbage:
    """What `collect` found.

    Attributes:
        files: unreachable files older than the safe age, relative to the store root, sorted.
        bytes: their size together.
        young: unreachable files left alone because something may be at work on them.
        deleted: whether `files` are gone now.
    """

    files: tuple[str, ...]
    bytes: int
    young: int
    deleted: bool


def collect(store: Store, delete: bool = False, min_age_s: float = SAFE_AGE_S) -> Garbage:
    """Find (and remove) media, parts, checkpoints and unfinished files that no manifest reaches.

    Args:
        store: the store.
        delete: remove them; else only report.
        min_age_s: seconds since a file was last written or used, below which it is left alone. Longer than
            any unit of work takes.

    Raises:
        StoreError: a manifest cannot be read (so that what it reaches is not known; nothing is removed), or
            the store is read-only.
    """
    now = time.time()
    old: dict[str, int] = {}
    young = 0
    idle = _idle_folders(store.root, now - min_age_s)
    # Files first, manifests second: a unit committed in between is then reached, not taken.
    present = sorted({path for pattern in _PATTERNS for path in store.root.glob(pattern) if path.is_file()})
    reached = {item.path for manifest in store.manifests() for item in manifest.files}
    for path in present:
        relative = path.relative_to(store.root).as_posix()
        if relative in reached:
            continue
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        if now - status.st_mtime < min_age_s:
            young += 1
        else:
            old[relative] = status.st_size
    if delete:
        for relative in list(old):
            if not _take(store.root, relative, now - min_age_s):
                del old[relative]
                young += 1
        for folder in idle:
            with contextlib.suppress(OSError):  # it is not empty, or gone
                folder.rmdir()
    return Garbage(tuple(sorted(old)), sum(old.values()), young, delete)


def _take(root: Path, relative: str, since: float) -> bool:
    """Remove a file, unless it was written or used since; whether it is gone."""
    path, aside = root / relative, root / "tmp" / f"{uuid.uuid4().hex}.tmp"
    with storage_errors(path):
        try:
            aside.parent.mkdir(exist_ok=True)
            os.rename(path, aside)
        except FileNotFoundError:  # another collector, or its unit was discarded
            return True
        if aside.stat().st_mtime > since:
            with contextlib.suppress(FileExistsError):  # written anew meanwhile: the same bytes
                os.link(aside, path)
            aside.unlink()
            return False
    remove(aside)
    return True


def _idle_folders(root: Path, since: float) -> list[Path]:
    """Folders of units in which nothing was made or removed since."""
    found = []
    for pattern in ("parts/*/*/*", "scratch/*"):
        for folder in sorted(root.glob(pattern)):
            with contextlib.suppress(FileNotFoundError):
                if folder.is_dir() and folder.stat().st_mtime <= since:
                    found.append(folder)
    return found
