"""`format.json`: which format a store has, and who wrote it."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shlex
from typing import Final

from data.errors import StoreError
from data.json_text import parse_json
from data.store.aside import FOLDER as ASIDE
from data.store.backend import Backend
from data.store.manifest import Damaged, forbidden

FORMAT: Final = 1
FILE: Final = "format.json"
# All that a store's folder may hold beside it; whoever finds only these finds a store.
_OURS: Final = {
    *("manifests", "parts", "media", "rounds", "improvements", "calibrations", "rewards", "runs"),
    *("scratch", "locks", "tmp", "champion.json", "champion.copy.json", ASIDE),
}


def heal_command(url: str) -> str:
    """The command that sets aside whatever is damaged in a store."""
    return f"vidloop scrub --heal --store {shlex.quote(url)}"


def is_missing(backend: Backend) -> bool:
    """Whether nothing says that a store is there. Raises StoreError: the place cannot be looked at."""
    return not backend.taken(FILE)


def is_store_without(backend: Backend) -> bool:
    """Whether there is committed work and no `format.json`."""
    return is_missing(backend) and bool(backend.names("manifests"))


def create(backend: Backend) -> None:
    """Make a store. Raises StoreError: something else is there, or it cannot be written."""
    # Our own folders may be there if a crash came between making them and the file, or the file was lost.
    strange = sorted(set(backend.make()) - _OURS - {FILE})
    if strange:
        raise StoreError(f"{backend.url} is neither a store nor empty (it holds {strange[0]}): name another")
    written = {"format": FORMAT, "written_by": _version() or "(run without installation)"}
    backend.create(FILE, (json.dumps(written) + "\n").encode())


def check(backend: Backend) -> None:
    """Raise StoreError if this program does not read the store's format; Damaged if nobody knows it."""
    path = backend.where(FILE)
    damaged = Damaged(f"{path} is damaged: `{heal_command(backend.url)}` writes it anew")
    try:
        found = parse_json(backend.read(FILE))
        number, writer = int(found["format"]), str(found.get("written_by", "an unnamed version"))
    except PermissionError as error:
        raise forbidden(path, error) from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise damaged from error
    if number > FORMAT and not _is_of_now(writer):
        raise StoreError(
            f"{backend.url} has store format {number}, written by vidloop {writer}; this program reads "
            f"format {FORMAT}: use vidloop {writer} or newer, or name another store with --store"
        )
    if number != FORMAT:
        raise damaged


def heal(backend: Backend) -> str | None:
    """Write the file anew if it is damaged or lost; what was wrong, or None. Raises StoreError: no store."""
    if is_store_without(backend):
        why = "it was not there"
    else:
        try:
            check(backend)
        except Damaged:
            why = "it was damaged"
            backend.set_aside(FILE, why)
        else:
            return None
    create(backend)
    return why


def _is_of_now(writer: str) -> bool:
    """Whether this very version, or an older one, wrote it: none of them knows a later format."""
    known = _version()
    return (
        known is not None
        and _numbers(writer) is not None
        and (_numbers(writer) or []) <= (_numbers(known) or [])
    )


def _numbers(version: str) -> list[int] | None:
    return [int(one) for one in version.split(".")] if re.fullmatch(r"\d+(\.\d+)*", version) else None


def _version() -> str | None:
    try:
        return importlib.metadata.version("vidloop")
    except importlib.metadata.PackageNotFoundError:
        return None
