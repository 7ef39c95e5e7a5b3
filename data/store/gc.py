"""Garbage: files that no manifest reaches. Nothing else is ever removed.

A file is reachable if any committed manifest names it. What a unit at work has written is young and not yet
named; `min_age_s` protects it, and a file that a unit finds and uses again is made young (see
`Store.write_media`). Between the look at a file's age and its end a unit may do so: a file is therefore moved
aside first, looked at again, and put back if it is young now.

No symbolic link is followed: what lies behind one is somebody else's, whoever put it there.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from data.store import Store
from data.store.durable_files import place, remove, storage_errors

SAFE_AGE_S: Final = 24 * 3600.0
_TOPS: Final = (
    "calibrations", "improvements", "locks", "manifests", "media", "parts", "rounds", "runs", "scratch", "tmp",
)  # fmt: skip
# An unfinished file lies beside its target where tmp/ is on another file system.
_FILE: Final = re.compile(
    r"media/[^/]+/[^/]+|parts/([^/]+/){3}[^/]+\.(parquet|tmp)|scratch/[^/]+/.+|tmp/[^/]+\.tmp"
    r"|[a-z]+/([^/]+/)*[0-9a-f]{32}0*\.tmp",
    re.DOTALL,
)
_UNITS_FOLDER: Final = re.compile(r"parts/[^/]+/[^/]+/[^/]+|scratch/[^/]+", re.DOTALL)


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
    # Files first, manifests second: a unit committed in between is then reached, not taken.
    present = sorted(_names(store.root))
    idle = _idle_folders(store.root, present, now - min_age_s)
    reached = {item.path for manifest in store.manifests() for item in manifest.files}
    for relative in present:
        if relative in reached or not _FILE.fullmatch(relative):
            continue
        try:
            status = (store.root / relative).lstat()
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(status.st_mode):
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
    path = root / relative
    aside = path.with_name(f"{uuid.uuid4().hex}.tmp")  # tmp/ may be on another file system
    with storage_errors(path):
        try:
            os.rename(path, aside)
        except FileNotFoundError:  # another collector, or its unit was discarded
            return True
        if aside.lstat().st_mtime > since:
            place(aside, path)  # else it was written anew meanwhile: the same bytes
            aside.unlink(missing_ok=True)
            return False
    remove(aside)
    return True


def _names(root: Path) -> Iterator[str]:
    """All that lies where garbage may, relative to the root; a symbolic link is one name, and not entered."""
    for top in _TOPS:
        if (root / top).is_symlink():  # which os.walk would enter
            continue
        for place, folders, files in os.walk(root / top):
            at = Path(place).relative_to(root)
            yield from ((at / name).as_posix() for name in (*folders, *files))


def _idle_folders(root: Path, present: Sequence[str], since: float) -> list[Path]:
    """Folders of units in which nothing was made or removed since."""
    found = []
    for folder in (root / name for name in present if _UNITS_FOLDER.fullmatch(name)):
        with contextlib.suppress(FileNotFoundError):
            status = folder.lstat()
            if stat.S_ISDIR(status.st_mode) and status.st_mtime <= since:
                found.append(folder)
    return found
