"""What is known of units that were looked up: what their manifests say, read once for all uses.

A round asks for them again and again: what a later unit was computed from, how many clips failed. Looking a
unit up (`look`) reads its manifest and refreshes what is known; the other functions take what is known, and
look up what is not. What another process removes meanwhile is noticed when it is read, or looked up again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from data.keys import canonical_json
from data.store import Damaged, Store

# What is said of a question that has no answer yet.
NOT_THERE: Final = "no manifest"

# Kind and version.
Reward = tuple[str, str]

_known: Final[dict[tuple[str, str], Known]] = {}
# Units of a stage say much the same: one object for each that is different.
_said: Final[dict[str, tuple[dict[str, Any], Reward | None]]] = {}


@dataclass(frozen=True, slots=True)
class Known:
    """Of a committed unit: the digest of its manifest, what it says of its work, and the reward it is of."""

    digest: str
    info: dict[str, Any]
    reward: Reward | None


def look(
    store: Store, key: str, level: Literal["hash", "size"] | None = None, stage: str | None = None
) -> str | None:
    """Why a unit does not count as there, as `Store.verify` says it; None: it does, and is known.

    Args:
        store: where it may be.
        key: which unit.
        level: how its files are looked at: their bytes are hashed, or their sizes compared; None: not at all.
        stage: where that is known, which makes it quicker.

    Raises:
        StoreError: the manifest is of a newer version, or may not be read.
    """
    _known.pop((store.url, key), None)
    try:
        manifest = store.manifest(key, stage)
    except Damaged as error:
        return error.what
    if manifest is None:
        return NOT_THERE
    if level is not None:
        for item in manifest.files:
            fault = store.fault(item, level)
            if fault is not None:
                return fault
    asked = manifest.question
    said = (manifest.info, (asked["reward"], asked["reward_version"]) if "reward" in asked else None)
    _known[store.url, key] = Known(manifest.digest, *_said.setdefault(canonical_json(said), said))
    return None


def known(store: Store, key: str) -> Known | None:
    """What is known of a unit; None: it is not there, or its manifest is damaged. Raises as `look`."""
    if (store.url, key) not in _known:
        look(store, key)
    return _known.get((store.url, key))


def was_known(store: Store, key: str) -> bool:
    """Whether the unit was there when it was last looked up."""
    return (store.url, key) in _known


def discard(store: Store, key: str) -> None:
    """Forget a unit, here and in the store; see `Store.discard`."""
    _known.pop((store.url, key), None)
    store.discard(key)


def set_aside(store: Store, key: str, why: str) -> None:
    """Take a unit out of the store, to be computed again; see `Store.set_unit_aside`."""
    _known.pop((store.url, key), None)
    store.set_unit_aside(key, why)
