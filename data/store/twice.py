"""Documents that are written again and again and cannot be computed anew: kept twice, closed by a digest.

    champion.json         {..., "check": SHA-256 of all the rest}
    champion.copy.json    the same, written first

The copy answers where the file is gone or damaged, and says so; the next writing mends it. A file of a version
that wrote no digest is taken as it is.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from data.errors import StoreError
from data.json_text import parse_json
from data.keys import digest
from data.store.manifest import Damaged
from data.store.store import Store

Read = TypeVar("Read")

log = logging.getLogger("vidloop.store")


def write_twice(store: Store, relative: str, said: Mapping[str, Any]) -> Path:
    """Write or replace a document. Raises StoreError: the store cannot be written.

    Args:
        relative: path below the store's root; its name ends in ".json".
        said: JSON values.
    """
    closed = {**said, "check": digest_of(said)}
    data = (json.dumps(closed, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()
    store.write_file(copy_of(relative), data)
    return store.write_file(relative, data)


def read_either(store: Store, relative: str, parse: Callable[[dict[str, Any]], Read]) -> Read | None:
    """What was written last; None if nothing was.

    Args:
        relative: path below the store's root.
        parse: makes something of what a file says. Raises ValueError, TypeError or KeyError: it says nothing.

    Raises:
        Damaged: neither the document nor its copy is whole.
        StoreError: this user may not read it.
    """
    path, copy = store.path(relative), store.path(copy_of(relative))
    why = ""
    try:
        found = _parsed(path, parse)
        if found is not None:
            return found
    except Damaged as error:
        why = error.what
    kept = None
    with contextlib.suppress(Damaged):
        kept = _parsed(copy, parse)
    if kept is not None:
        log.warning("%s: its copy is read, %s", why or f"{path} is gone", copy)
    elif why:
        raise Damaged(f"{why}, and it has no whole copy", f"`{store.heal_command}` sets it aside")
    return kept


def _parsed(path: Path, parse: Callable[[dict[str, Any]], Read]) -> Read | None:
    try:
        said = read_closed(path)
        return None if said is None else parse(said)
    except (ValueError, TypeError, KeyError) as error:
        raise Damaged(f"cannot read {path} ({' '.join(str(error).split())})") from error


def read_closed(path: Path) -> dict[str, Any] | None:
    """One of the two files; None if it is not there. Raises Damaged; StoreError: it may not be read."""
    try:
        found = parse_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}; make it readable for this user") from error
    except (OSError, ValueError) as error:
        raise Damaged(f"cannot read {path} ({error})") from error
    if not isinstance(found, dict):
        raise Damaged(f"cannot read {path} (it is no object of JSON)")
    check = found.pop("check", None)
    if check is not None and check != digest_of(found):
        raise Damaged(f"{path} was changed after it was written")
    return found


def is_kept_twice(store: Store, relative: str) -> bool:
    """Whether a document and its copy are both there, whole, and say the same."""
    try:
        first, second = (read_closed(store.path(one)) for one in (relative, copy_of(relative)))
    except Damaged:
        return False
    return first is not None and first == second


def copy_of(relative: str) -> str:
    """Where the copy of a document lies."""
    return f"{relative.removesuffix('.json')}.copy.json"


def digest_of(said: Mapping[str, Any]) -> str:
    """Digest of a document as its file says it."""
    return digest(json.loads(json.dumps(dict(said))))
