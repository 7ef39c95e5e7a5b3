"""What is known of units: read once, asked for together, and no more of it remembered than is bounded."""

from __future__ import annotations

import pytest

from data.bounded import Bounded
from data.store import Store
from tasks import lookups


@pytest.fixture
def keys(store: Store) -> list[str]:
    return [
        store.commit(
            "try", {"stage": "try", "version": 1, "n": n}, {"prompts": []}, info={"clips": n % 2}
        ).key
        for n in range(6)
    ]


def test_more_units_than_are_remembered_are_known_all_the_same(
    store: Store, keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = lookups.known(store, keys)
    assert [one and (one.digest, one.info) for one in whole] == [
        (one.digest, one.info) for one in map(store.manifest, keys) if one is not None
    ]
    held: Bounded[tuple[str, str], lookups.Known] = Bounded(4)
    monkeypatch.setattr(lookups, "_known", held)
    assert set(lookups.look(store, [("try", key) for key in keys], "hash").values()) == {None}
    assert len(held) == 4
    for _ in range(2):
        assert lookups.known(store, [*keys, "0" * 64, *reversed(keys)]) == [*whole, None, *reversed(whole)]
        assert len(held) == 4


def test_what_is_known_is_read_once_and_what_was_removed_is_not_known(
    store: Store, keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = lookups.known(store, keys)
    monkeypatch.setattr(Store, "manifest_at", None)
    assert lookups.known(store, keys) == before
    monkeypatch.undo()
    lookups.discard(store, keys[1])
    assert [one is None for one in lookups.known(store, keys)] == [n == 1 for n in range(6)]
    store.forget(keys[2])
    assert lookups.was_known(store, keys[2])
    said = lookups.look(store, [(None, key) for key in keys])
    assert said == {key: lookups.NOT_THERE if n in (1, 2) else None for n, key in enumerate(keys)}
    assert not lookups.was_known(store, keys[2])
