"""What is known of units that were looked up: what their manifests say, read once for all uses.

A round asks for them again and again: what a later unit was computed from, how many clips failed. Looking
units up (`look`) reads their manifests and refreshes what is known; the other functions take what is known,
and look up what is not. What another process removes meanwhile is noticed when it is read, or looked up
again.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from data.bounded import Bounded
from data.keys import canonical_json
from data.store import NOT_THERE as NOT_THERE
from data.store import Manifest, Store

# Kind and version.
Reward = tuple[str, str]
# Stage, or None where that is not known, and key of a unit.
Place = tuple[str | None, str]


@dataclass(frozen=True, slots=True)
class Known:
    """Of a committed unit: the digest of its manifest, what it says of its work, and the reward it is of."""

    digest: str
    info: dict[str, Any]
    reward: Reward | None


# By store and key; one takes about 400 bytes.
_known: Final[Bounded[tuple[str, str], Known]] = Bounded(500_000)


def look(
    store: Store,
    places: Iterable[Place],
    level: Literal["hash", "size"] | None = None,
) -> dict[str, str | None]:
    """Why units do not count as there, by key, as `Store.look_up` says it; None: they do, and are known.

    Args:
        store: where they may be.
        places: stage, or None, and key of each.
        level: how their files are looked at: bytes are hashed, or sizes compared; None: not at all.

    Raises:
        StoreError: a manifest is of a newer version, or may not be read.
    """
    return {
        key: found if isinstance(found, str) else None for key, found in _looked(store, places, level).items()
    }


def known(store: Store, keys: Sequence[str]) -> list[Known | None]:
    """What is known of units; None of one that is not there, or whose manifest is damaged.

    Raises as `look`.
    """
    held: dict[str, Known | str | None] = {key: _known.get((store.url, key)) for key in keys}
    held |= _looked(store, [(None, key) for key, one in held.items() if one is None])
    return [one if isinstance(one := held[key], Known) else None for key in keys]


def _looked(
    store: Store,
    places: Iterable[Place],
    level: Literal["hash", "size"] | None = None,
) -> dict[str, Known | str]:
    said: dict[str, Known | str] = {}
    for key, found in store.look_up(places, level):
        if isinstance(found, str):
            _known.pop((store.url, key))
            said[key] = found
        else:
            said[key] = _known.put((store.url, key), _of(found))
    return said


def _of(manifest: Manifest) -> Known:
    asked = manifest.question
    reward = (asked["reward"], asked["reward_version"]) if "reward" in asked else None
    return Known(manifest.digest, *_said(canonical_json([manifest.info, reward])))


@functools.lru_cache(maxsize=1024)
def _said(text: str) -> tuple[dict[str, Any], Reward | None]:
    """Units of a stage say much the same: one object for each that is different."""
    info, reward = json.loads(text)
    return info, reward and tuple(reward)


def was_known(store: Store, key: str) -> bool:
    """Whether the unit was there when it was last looked up."""
    return _known.get((store.url, key)) is not None


def discard(store: Store, key: str) -> None:
    """Forget a unit, here and in the store; see `Store.discard`."""
    _known.pop((store.url, key))
    store.discard(key)


def set_aside(store: Store, key: str, why: str) -> None:
    """Take a unit out of the store, to be computed again; see `Store.set_unit_aside`."""
    _known.pop((store.url, key))
    store.set_unit_aside(key, why)
