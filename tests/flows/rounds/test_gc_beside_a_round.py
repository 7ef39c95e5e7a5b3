"""The collector beside a round that uses the very files it would remove: nothing committed lacks anything."""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from data import champion
from data.store import Store, gc
from data.store.gc import SAFE_AGE_S, collect
from flows.config.load import load_recipe
from flows.rounds.campaign import present
from tests.tiny_round import Tiny, committed, play


def age(root: Path) -> None:
    then = time.time() - 3 * SAFE_AGE_S
    for path in [*root.rglob("*"), root]:
        if path.is_file() or path.is_dir():
            os.utime(path, (then, then))


@pytest.mark.slow
def test_old_files_that_a_running_round_finds_and_uses_again_stay(tiny: Tiny) -> None:
    play(tiny)
    store = Store.open(tiny.store)
    before = committed(tiny.store)
    # A round that was killed before its manifests, days ago: every file is there, nothing reaches any.
    shutil.rmtree(tiny.store / "manifests")
    age(tiny.store)
    over = threading.Event()
    found: list[gc.Garbage] = []

    def collects() -> None:
        while not over.is_set():
            found.append(collect(store, delete=True))

    collector = threading.Thread(target=collects)
    collector.start()
    try:
        play(tiny)
    finally:
        over.set()
        collector.join()
    assert sum(len(one.files) for one in found) > 0
    assert committed(tiny.store) == before
    for manifest in store.manifests():
        assert store.verify(manifest.key, "hash") is None


def test_what_a_champion_rests_on_is_reached_however_old(tiny: Tiny) -> None:
    summary = play(tiny)
    store = Store.open(tiny.store)
    champion.promote(store, summary["policy_after"], summary["round"])
    age(tiny.store)
    before = committed(tiny.store)
    assert collect(store, delete=True, min_age_s=0).files == ()
    assert committed(tiny.store) == before
    held = present(load_recipe(str(tiny.recipe)), store)
    assert held.policy_id == summary["policy_after"]
    assert store.read_media(held.adapter_path)


def test_a_file_used_between_the_look_and_the_end_is_put_back(store: Store) -> None:
    media = store.write_media(b"shared", "mp4")
    path = store.path(media.path)
    os.utime(path, (1, 1))
    since = time.time() - 60
    store.write_media(b"shared", "mp4")  # a unit at work needs it after all
    assert not store.backend.sweep([media.path], since)
    assert store.read_media(media.path) == b"shared"
    assert list((store.root / "tmp").iterdir()) == []
    os.utime(path, (1, 1))
    assert store.backend.sweep([media.path], since)
    assert not path.exists()
    assert store.backend.sweep([media.path], since)  # somebody else was quicker
