"""Garbage: files that no manifest reaches, and segments that others took the place of; nothing else.

A file is reachable if any committed manifest names it. What a unit at work has written is young and not yet
named; `min_age_s` protects it, and a file that a unit finds and uses again is made young (see
`Store.write_media`). Between the look at a file's age and its end a unit may do so: a backend's `sweep` sees
to that.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Final

from data.store import Store, segments

SAFE_AGE_S: Final = 24 * 3600.0
# An unfinished file lies beside its target where tmp/ is on another file system.
_FILE: Final = re.compile(
    r"media/[^/]+/[^/]+|parts/([^/]+/){3}[^/]+\.(parquet|tmp)|scratch/[^/]+/.+|tmp/[^/]+\.tmp"
    r"|[a-z]+/([^/]+/)*[0-9a-f]{32}0*\.tmp",
    re.DOTALL,
)


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
    since = time.time() - min_age_s
    backend = store.backend
    old: dict[str, int] = {}
    young = 0
    # Files first, manifests second: a unit committed in between is then reached, not taken.
    present = [entry for entry in backend.entries() if _FILE.fullmatch(entry.path)]
    idle = backend.idle(since)
    replaced = segments.superseded(store, since)
    if delete:
        for segment in replaced:
            store.forget(segment.key)
    reached = {item.path for manifest in store.manifests() for item in manifest.files}
    reached -= {part.path for segment in replaced for part in segment.parts}
    for entry in present:
        if entry.path in reached:
            continue
        if entry.time > since:
            young += 1
        else:
            old[entry.path] = entry.bytes
    if delete:
        gone = backend.sweep(list(old), since)
        young += len(old) - len(gone)
        old = {path: size for path, size in old.items() if path in gone}
        for folder in idle:
            backend.drop(folder)
    return Garbage(tuple(sorted(old)), sum(old.values()), young, delete)
