"""Which version of a reward is the newest: when each was first committed, as recorded then.

    rewards/<digest of reward and version>.json    {"reward", "reward_version", "first"}: written once
    rewards/complete.json                          every version of the store has its file

Times are in no digest, and they travel with a copy of the store, which the times of its files do not.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Final

import pyarrow as pa

from data.json_text import parse_json
from data.keys import digest
from data.store.backend import Backend

FOLDER: Final = "rewards"
_COMPLETE: Final = f"{FOLDER}/complete.json"
# (store, path) of the files that this process knows to be there.
_known: set[tuple[str, str]] = set()


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a reward, and the time (ISO 8601, UTC) at which its first scores were committed."""

    reward: str
    reward_version: str
    first: str


def of(tables: Mapping[str, pa.Table]) -> set[tuple[str, str]]:
    """(reward, version) of the scores among a unit's tables."""
    if "scores" not in tables:
        return set()
    found = (tables["scores"].column(name).to_pylist() for name in ("reward", "reward_version"))
    return set(zip(*found, strict=True))


def note(backend: Backend, versions: Iterable[tuple[str, str]], first: datetime | None = None) -> None:
    """Record versions that are not recorded yet.

    Args:
        backend: of the store that is about to hold scores of theirs.
        versions: (reward, version).
        first: when they were first committed; None: now.

    Raises:
        StoreError: the store cannot be written.
    """
    for reward, version in sorted(set(versions)):
        path = f"{FOLDER}/{digest([reward, version])[:32]}.json"
        if first is None and (backend.url, path) in _known:
            continue
        if _read(backend, path) is None:
            time = (first or datetime.now(UTC)).isoformat(timespec="microseconds")
            backend.put(path, _json(asdict(Version(reward, version, time))))
        _known.add((backend.url, path))


def note_complete(backend: Backend) -> None:
    """Record that every version has its file. Raises StoreError: the store cannot be written."""
    backend.put(_COMPLETE, _json({"complete": True}))


def recorded(backend: Backend) -> list[Version] | None:
    """Every version, by reward, the newest first.

    None: a file is damaged, or an earlier program wrote the store, so that some have none.
    """
    if not backend.taken(_COMPLETE):
        return None
    read = [_read(backend, path) for path in backend.find(f"{FOLDER}/*.json") if path != _COMPLETE]
    found = [one for one in read if one is not None]
    return newest_first(found) if len(found) == len(read) else None


def newest_first(versions: Iterable[Version]) -> list[Version]:
    """Versions by reward, those of a reward by time, the newest first."""
    by_name = sorted(versions, key=lambda one: one.reward_version)
    by_time = sorted(by_name, key=lambda one: one.first, reverse=True)
    return sorted(by_time, key=lambda one: one.reward)


def _read(backend: Backend, path: str) -> Version | None:
    """What one file says; None if it is not there, or says nothing."""
    try:
        said = parse_json(backend.read(path))
        found = Version(said["reward"], said["reward_version"], said["first"])
        datetime.fromisoformat(found.first)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return found


def _json(said: dict[str, object]) -> bytes:
    return (json.dumps(said) + "\n").encode()
