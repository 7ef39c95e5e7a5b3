"""Documents that are written again and again and cannot be computed anew: kept twice, closed by a digest.

    champion.json         {..., "check": SHA-256 of all the rest}
    champion.copy.json    the same, written first

The copy answers where the file is gone or damaged, and says so; the next writing mends it. A file of a
version that wrote no digest is taken as it is.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from data.json_text import parse_json
from data.keys import digest
from data.store.manifest import Damaged, forbidden
from data.store.store import Store

Read = TypeVar("Read")

log = logging.getLogger("vidloop.store")


def write_twice(store: Store, relative: str, said: Mapping[str, Any]) -> None:
    """Write or replace a document of which this process is the only writer.

    Args:
        relative: path below the store's root; its name ends in ".json".
        said: JSON values.

    Raises:
        StoreError: the store cannot be written.
    """
    data = _closed(said)
    store.write_file(copy_of(relative), data)
    store.write_file(relative, data)


def update_twice(
    store: Store,
    relative: str,
    parse: Callable[[dict[str, Any]], Read],
    change: Callable[[Read | None], Mapping[str, Any]],
) -> None:
    """Change a document that several processes may change at once: none of their changes is lost.

    Args:
        relative: path below the store's root; its name ends in ".json".
        parse: as of `read_either`.
        change: what is to be said, by what is said now. It may be asked again, of what another process wrote
            meanwhile. What it raises goes on, and nothing has changed.

    Raises:
        Damaged: neither the document nor its copy is whole.
        StoreError: the store cannot be written.
    """
    pair = (copy_of(relative), relative)
    with store.lock(relative.removesuffix(".json")):
        while True:
            tokens = [store.backend.token(one) for one in pair]
            data = _closed(change(read_either(store, relative, parse)))
            if all(_say(store, one, data, token) for one, token in zip(pair, tokens, strict=True)):
                return


def _say(store: Store, relative: str, data: bytes, token: str | None) -> bool:
    """Have a file say this, unless it changed since `token`; whether it says it now."""
    with contextlib.suppress(OSError):
        if store.backend.read(relative) == data:
            return store.backend.keep(
                relative, data
            )  # whoever wrote it may have been killed before it was safe
    return store.backend.swap(relative, data, token)


def _closed(said: Mapping[str, Any]) -> bytes:
    closed = {**said, "check": digest_of(said)}
    return (json.dumps(closed, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()


def read_either(store: Store, relative: str, parse: Callable[[dict[str, Any]], Read]) -> Read | None:
    """What was written last; None if nothing was.

    Args:
        relative: path below the store's root.
        parse: makes something of what a file says. Raises ValueError, TypeError or KeyError: it says nothing.

    Raises:
        Damaged: neither the document nor its copy is whole.
        StoreError: this user may not read it.
    """
    why = ""
    try:
        found = _parsed(store, relative, parse)
        if found is not None:
            return found
    except Damaged as error:
        why = error.what
    kept, copy = None, copy_of(relative)
    with contextlib.suppress(Damaged):
        kept = _parsed(store, copy, parse)
    if kept is not None:
        gone = f"{store.where(relative)} is gone"
        log.warning("%s: its copy is read, %s", why or gone, store.where(copy))
    elif why:
        raise Damaged(f"{why}, and it has no whole copy", f"`{store.heal_command}` sets it aside")
    return kept


def _parsed(store: Store, relative: str, parse: Callable[[dict[str, Any]], Read]) -> Read | None:
    try:
        said = read_closed(store, relative)
        return None if said is None else parse(said)
    except (ValueError, TypeError, KeyError) as error:
        told = " ".join(str(error).split())
        raise Damaged(f"cannot read {store.where(relative)} ({told})") from error


def read_closed(store: Store, relative: str) -> dict[str, Any] | None:
    """One of the two files; None if it is not there. Raises Damaged; StoreError: it may not be read."""
    where = store.where(relative)
    try:
        found = parse_json(store.backend.read(relative))
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise forbidden(where, error) from error
    except (OSError, ValueError) as error:
        raise Damaged(f"cannot read {where} ({error})") from error
    if not isinstance(found, dict):
        raise Damaged(f"cannot read {where} (it is no object of JSON)")
    check = found.pop("check", None)
    if check is not None and check != digest_of(found):
        raise Damaged(f"{where} was changed after it was written")
    return found


def copy_of(relative: str) -> str:
    """Where the copy of a document lies."""
    return f"{relative.removesuffix('.json')}.copy.json"


def digest_of(said: Mapping[str, Any]) -> str:
    """Digest of a document as its file says it."""
    return digest(json.loads(json.dumps(dict(said))))
