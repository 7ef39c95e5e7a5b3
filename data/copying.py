"""A store copied to another place, of either kind: committed work, champions, rounds, calibrations, logs.

What a file is named by is checked on the way: media by their digest, parts by the beginning of theirs,
manifests by what closes them. A manifest is copied after all that it may name, so an interrupted copy is a
smaller store, and the same call goes on where it ended. Checkpoints, locks and what was set aside are left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from data import champion
from data.errors import StoreError
from data.keys import bytes_digest
from data.store import Damaged, Manifest, Store
from data.store.backend import Entry
from data.store.twice import copy_of

_STAYS: Final = ("scratch", "locks", "tmp", "aside", "format.json")
_CHAMPION: Final = (copy_of(champion.FILE), champion.FILE)
# Requests at once: a service answers many as quickly as one.
_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class Copied:
    """What `copy` did: files and bytes that were written, files that were there, and logs and documents."""

    files: int
    bytes: int
    there: int


def copy(source: Store, target: Store, say: Callable[[str], None] = lambda line: None) -> Copied:
    """Copy all of a store's work into another store, which keeps what it holds.

    Args:
        source: is read; a round may be at work in it, of which what is committed by now is copied.
        target: is written; may hold a part already, or other work.
        say: told of what comes next.

    Raises:
        Damaged: a file of the source is not what its name says; nothing that names it was copied.
        StoreError: the target has champions that the source has not, or cannot be written.
    """
    theirs, ours = champion.history(target), champion.history(source)
    if theirs != ours[: len(theirs)]:
        raise StoreError(
            f"{target.url} has champions of its own ({theirs[-1].policy_id}): copy into a store without, or "
            "roll them back first"
        )
    # Manifests first: all that those name is there when the rest is listed.
    manifests = [one for one in _held(source) if one.path.startswith("manifests/")]
    rest = [one for one in _held(source) if not one.path.startswith("manifests/")]
    rest = [one for one in rest if one.path not in _CHAMPION]
    there = {one.path: one.bytes for one in _held(target)}
    say(f"{len(rest)} files, then {len(manifests)} units")
    done = [*_copied(source, target, rest, there), *_copied(source, target, manifests, there)]
    if ours != theirs:
        for path in _CHAMPION:
            if source.has(path):
                target.write_file(path, source.read_file(path))
    written = [size for size in done if size is not None]
    return Copied(len(written), sum(written), len(done) - len(written))


def _held(store: Store) -> list[Entry]:
    """What is copied, as it was written: units in the order in which they were committed."""
    entries = (one for one in store.backend.entries() if one.path.split("/")[0] not in _STAYS)
    return sorted(
        (one for one in entries if not one.path.endswith(".tmp")), key=lambda one: (one.time, one.path)
    )


def _copied(
    source: Store, target: Store, entries: Iterable[Entry], there: dict[str, int]
) -> Iterable[int | None]:
    """Size of each file that was written; None for one that was there."""

    def one(entry: Entry) -> int | None:
        folder = entry.path.split("/")[0]
        named = folder in ("media", "parts", "manifests")
        if named and there.get(entry.path) == entry.bytes:
            return None
        data = source.read_file(entry.path)
        if fault := _fault(source, entry.path, data):
            raise Damaged(f"{source.where(entry.path)} {fault}", f"`{source.heal_command}` sets it aside")
        if not named and entry.path in there and target.read_file(entry.path) == data:
            return None
        if folder == "manifests":
            return len(data) if target.backend.create(entry.path, data) else None
        target.write_file(entry.path, data)
        return len(data)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(one, entries))


def _fault(source: Store, path: str, data: bytes) -> str:
    """Why a file is not what it says that it is; "": it is, or says nothing."""
    folder, stem = path.split("/")[0], PurePosixPath(path).stem
    if folder == "manifests":
        try:
            Manifest.from_bytes(data, source.where(path))
        except Damaged as error:
            return f"is damaged ({error.what})"
    digest = {"media": stem, "parts": stem.rpartition("-")[2]}.get(folder, "")
    return (
        "" if bytes_digest(data).startswith(digest) else "was changed after it was written (sha256 differs)"
    )
