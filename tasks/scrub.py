"""Scrub: every file of a store looked at; what is damaged is set aside, if asked, and never deleted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from data import champion
from data.errors import StoreError
from data.json_text import parse_json
from data.store import Damaged, Media, Part, Store, format
from data.store.aside import set_aside
from data.store.twice import copy_of, read_closed
from tasks import calibrate, campaign_record
from tasks.rounds import RECIPE, SUMMARY
from tasks.summary import RoundSummary


@dataclass(frozen=True, slots=True)
class Fault:
    """A file that is not what it should be: its path below the store's root, and what is wrong with it."""

    path: str
    why: str


def scrub(root: Path, heal: bool = False) -> list[Fault]:
    """Look at every file of the store at `root`, hash what has a digest, and read every document.

    A unit with a damaged file is set aside whole: the command that made it computes it anew. A link to the
    right bytes becomes a file of these. A document that is kept twice is mended by its whole copy.

    Args:
        root: the store's folder.
        heal: set aside, or mend, what is damaged; else only find it.

    Returns:
        What is, or was, damaged; none if the store is whole.

    Raises:
        StoreError: there is no store, it was written by a newer version, this user may not read a file of it,
            or it cannot be written.
    """
    found: list[Fault] = []
    try:
        store = Store.open(root)
    except Damaged as error:
        found.append(Fault(format.FILE, str(error)))
        if heal:
            format.heal(root)
        store = Store(root)
    return [*found, *_units(store, heal), *_twice(store, heal), *_documents(store, heal)]


def _units(store: Store, heal: bool) -> Iterator[Fault]:
    known: dict[Part | Media, str | None] = {}  # units share media
    for path in store.manifest_files():
        try:
            manifest = store.manifest_at(path)
        except Damaged as error:
            yield Fault(path.relative_to(store.root).as_posix(), error.what)
            if heal:
                set_aside(store.root, path, error.what)
            continue
        faults = [fault for item in manifest.files if (fault := _file(store, item, known, heal))]
        yield from faults
        if heal and any(known[item] is not None for item in manifest.files):
            store.set_unit_aside(manifest.key, "; ".join(fault.why for fault in faults) or "damaged media")


def _file(
    store: Store, item: Part | Media, known: dict[Part | Media, str | None], heal: bool
) -> Fault | None:
    """What is wrong with one file of a unit, said once however many units share it."""
    if item in known:
        return None
    known[item] = fault = store.fault(item)
    path = store.path(item.path)
    if fault is None and path.is_symlink():
        if heal:
            store.write_file(item.path, path.read_bytes())
        return Fault(item.path, "a link to a file elsewhere that holds the right bytes")
    return None if fault is None else Fault(item.path, fault)


def _twice(store: Store, heal: bool) -> Iterator[Fault]:
    """Documents that are kept twice."""
    shapes: dict[str, Callable[[Mapping[str, Any]], object]] = {champion.FILE: champion.parsed}
    for name in campaign_record.names(store):
        shapes[campaign_record.record_of(name)] = campaign_record.parsed
    for relative, shape in shapes.items():
        pair = (relative, copy_of(relative))
        wrong: dict[str, str] = {}
        for one in pair:
            try:
                said = read_closed(store.path(one))
                if said is not None:
                    shape(said)
                elif os.path.lexists(store.path(one)):
                    wrong[one] = "a link to nothing"
            except (Damaged, ValueError, TypeError, KeyError) as error:
                wrong[one] = str(error)
        yield from (Fault(one, why) for one, why in wrong.items())
        if heal and wrong:
            for one, why in wrong.items():
                store.set_aside(one, why)
            held = [one for one in pair if one not in wrong and store.path(one).is_file()]
            for one in wrong if held else ():
                store.write_file(one, store.path(held[0]).read_bytes())


def _documents(store: Store, heal: bool) -> Iterator[Fault]:
    for pattern, read in _DOCUMENTS.items():
        for path in sorted(store.root.glob(pattern)):
            relative = path.relative_to(store.root).as_posix()
            if relative.endswith(copy_of(".json")):
                continue
            try:
                if path.is_symlink():
                    raise ValueError("a link")
                read(path.read_bytes())
                continue
            except PermissionError as error:
                raise StoreError(f"cannot read {path}: {error.strerror}; make it readable") from error
            except (OSError, ValueError) as error:
                yield Fault(relative, " ".join(str(error).split()))
            if heal:
                store.set_aside(relative, "damaged")


def _object(data: bytes) -> None:
    if not isinstance(parse_json(data), dict):
        raise ValueError("it is no object of JSON")


_DOCUMENTS: Final[Mapping[str, Callable[[bytes], object]]] = {
    f"rounds/*/{SUMMARY}": RoundSummary.model_validate_json,
    f"rounds/*/{RECIPE}": _object,
    "calibrations/*.json": calibrate.parsed,
    "runs/*.jsonl": bytes.decode,
}
