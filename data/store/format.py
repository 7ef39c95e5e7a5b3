"""`format.json`: which format a store has, and who wrote it."""

from __future__ import annotations

import errno
import importlib.metadata
import json
import os
import re
import shlex
from pathlib import Path
from typing import Final

from data.errors import StoreError
from data.json_text import parse_json
from data.store.aside import FOLDER as ASIDE
from data.store.aside import set_aside
from data.store.durable_files import make_folder, storage_errors, write_durably
from data.store.manifest import Damaged

FORMAT: Final = 1
FILE: Final = "format.json"
# All that a store's folder may hold beside it; whoever finds only these finds a store.
_OURS: Final = {
    *("manifests", "parts", "media", "rounds", "improvements", "calibrations", "runs"),
    *("scratch", "locks", "tmp", "champion.json", "champion.copy.json", ASIDE),
}


def heal_command(root: Path) -> str:
    """The command that sets aside whatever is damaged in the store at `root`."""
    return f"vidloop scrub --heal --store {shlex.quote(str(root))}"


def is_missing(root: Path) -> bool:
    """Whether nothing says that `root` is a store. Raises StoreError: the folder cannot be looked at."""
    with storage_errors(root / FILE):
        return not os.path.lexists(root / FILE)


def is_store_without(root: Path) -> bool:
    """Whether a folder holds committed work and no `format.json`."""
    return is_missing(root) and (root / "manifests").is_dir()


def create(root: Path) -> None:
    """Make `root` a store. Raises StoreError: it holds something else, or cannot be written."""
    with storage_errors(root):
        make_folder(root)
        # Our own folders may be there if a crash came between making them and the file, or the file was lost.
        strange = sorted({entry.name for entry in root.iterdir()} - _OURS - {FILE})
    if strange:
        raise StoreError(f"{root} is neither a store nor empty (it holds {strange[0]}): name another")
    written = {"format": FORMAT, "written_by": _version() or "(run without installation)"}
    write_durably(root / "tmp", root / FILE, (json.dumps(written) + "\n").encode(), replace=False)


def check(root: Path) -> None:
    """Raise StoreError if this program does not read the store's format; Damaged if nobody knows it."""
    path = root / FILE
    damaged = Damaged(f"{path} is damaged: `{heal_command(root)}` writes it anew")
    try:
        found = parse_json(path.read_bytes())
        number, writer = int(found["format"]), str(found.get("written_by", "an unnamed version"))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise damaged from error
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            with storage_errors(path, f"make it readable for this user (`chmod u+r {shlex.quote(str(path))}`)"):
                raise
        raise damaged from error
    if number > FORMAT and not _is_of_now(writer):
        raise StoreError(
            f"{root} has store format {number}, written by vidloop {writer}; this program reads "
            f"format {FORMAT}: use vidloop {writer} or newer, or name another store with --store"
        )
    if number != FORMAT:
        raise damaged


def heal(root: Path) -> str | None:
    """Write the file anew if it is damaged or lost; what was wrong, or None. Raises StoreError: no store."""
    if is_store_without(root):
        why = "it was not there"
    else:
        try:
            check(root)
        except Damaged:
            why = "it was damaged"
            set_aside(root, root / FILE, why)
        else:
            return None
    create(root)
    return why


def _is_of_now(writer: str) -> bool:
    """Whether this very version, or an older one, wrote it: none of them knows a later format."""
    known = _version()
    return known is not None and _numbers(writer) is not None and (_numbers(writer) or []) <= (_numbers(known) or [])


def _numbers(version: str) -> list[int] | None:
    return [int(one) for one in version.split(".")] if re.fullmatch(r"\d+(\.\d+)*", version) else None


def _version() -> str | None:
    try:
        return importlib.metadata.version("vidloop")
    except importlib.metadata.PackageNotFoundError:
        return None
