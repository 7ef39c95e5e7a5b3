"""Scrub: every file of a store looked at; what is damaged is set aside, if asked, and never deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from data import champion
from data.json_text import parse_json
from data.store import Damaged, Media, Part, Store, format
from data.store.backend import Backend
from data.store.manifest import forbidden
from data.store.twice import copy_of, read_closed
from tasks import calibrate, campaign_record, imports, rounds
from tasks.rounds import RECIPE, SUMMARY


@dataclass(frozen=True, slots=True)
class Fault:
    """A file that is not what it should be: its path below the store's root, and what is wrong with it."""

    path: str
    why: str


def scrub(backend: Backend, heal: bool = False) -> list[Fault]:
    """Look at every file of a store, hash what has a digest, and read every document.

    A unit with a damaged file is set aside whole: the command that made it computes it anew. A link to the
    right bytes becomes a file of these. A document that is kept twice is mended by its whole copy.

    Args:
        backend: where the store lies.
        heal: set aside, or mend, what is damaged; else only find it.

    Returns:
        What is, or was, damaged; none if the store is whole.

    Raises:
        StoreError: there is no store, it was written by a newer version, this user may not read a file of it,
            or it cannot be written.
    """
    found: list[Fault] = []
    try:
        store = Store.open(backend.url)
    except Damaged as error:
        found.append(Fault(format.FILE, str(error)))
        if heal:
            format.heal(backend)
        store = Store(backend)
    return [*found, *_units(store, heal), *_twice(store, heal), *_documents(store, heal)]


def _units(store: Store, heal: bool) -> Iterator[Fault]:
    known: dict[Part | Media, str | None] = {}  # units share media
    for path in store.manifest_files():
        try:
            manifest = store.manifest_at(path)
        except Damaged as error:
            yield Fault(str(path), error.what)
            if heal:
                store.set_aside(str(path), error.what)
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
    if fault is None and store.backend.is_link(item.path):
        if heal:
            store.write_file(item.path, store.read_file(item.path))
        return Fault(item.path, "a link to a file elsewhere that holds the right bytes")
    return None if fault is None else Fault(item.path, fault)


def _twice(store: Store, heal: bool) -> Iterator[Fault]:
    """Documents that are kept twice."""
    shapes: dict[str, Callable[[Mapping[str, Any]], object]] = {champion.FILE: champion.parsed}
    for name in campaign_record.names(store):
        shapes[campaign_record.record_of(name)] = campaign_record.parsed
    for name in imports.names(store):
        shapes[imports.record_of(name)] = imports.parsed
    for relative, shape in shapes.items():
        pair = (relative, copy_of(relative))
        wrong: dict[str, str] = {}
        for one in pair:
            try:
                said = read_closed(store, one)
                if said is not None:
                    shape(said)
                elif store.backend.taken(one):
                    wrong[one] = "a link to nothing"
            except (Damaged, ValueError, TypeError, KeyError) as error:
                wrong[one] = str(error)
        yield from (Fault(one, why) for one, why in wrong.items())
        if heal and wrong:
            for one, why in wrong.items():
                store.set_aside(one, why)
            held = [one for one in pair if one not in wrong and store.has(one)]
            for one in wrong if held else ():
                store.write_file(one, store.read_file(held[0]))


def _documents(store: Store, heal: bool) -> Iterator[Fault]:
    for pattern, read in _DOCUMENTS.items():
        for relative in store.find(pattern):
            if relative.endswith(copy_of(".json")):
                continue
            try:
                if store.backend.is_link(relative):
                    raise ValueError("a link")
                read(store.read_file(relative), relative)
                continue
            except PermissionError as error:
                raise forbidden(store.where(relative), error) from error
            except (OSError, ValueError) as error:
                yield Fault(relative, " ".join(str(error).split()))
            if heal:
                store.set_aside(relative, "damaged")


def _object(data: bytes) -> None:
    if not isinstance(parse_json(data), dict):
        raise ValueError("it is no object of JSON")


# What reads a document, given its bytes and its path in the store.
_DOCUMENTS: Final[Mapping[str, Callable[[bytes, str], object]]] = {
    f"rounds/*/{SUMMARY}": lambda data, path: rounds.parsed(data, PurePosixPath(path).parent.name),
    f"rounds/*/{RECIPE}": lambda data, _: _object(data),
    "calibrations/*.json": lambda data, _: calibrate.parsed(data),
    "rewards/*.json": lambda data, _: _object(data),
    "runs/*.jsonl": lambda data, _: data.decode(),
}
