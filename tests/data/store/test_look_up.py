"""Units that are looked up together are found as one by one, wherever they lie and whatever befell them."""

import logging
import random

import pytest

from data.bounded import Bounded
from data.queries import run_query
from data.store import NOT_THERE, Damaged, Store, segments
from data.store.compaction import compact
from tests.data.store.test_segments import fill, flip, units, without_originals


def one_by_one(store, places, level):
    """The plain way."""
    found = {}
    for stage, key in places:
        try:
            manifest = store.manifest(key, stage)
        except Damaged as error:
            found[key] = error.what
            continue
        faults = [store.fault(item, level) for item in manifest.files] if manifest and level else []
        found[key] = next((fault for fault in faults if fault), manifest or NOT_THERE)
    return found


def places_of(store):
    named = [(path.parent.name, path.stem) for path in store.manifest_files()]
    held = [(stage, key) for stage, key in named if stage not in segments.OWN]
    return [*held, ("score", "0" * 64), (None, "1" * 64)]


def scores(store):
    return run_query(store, "SELECT * FROM scores ORDER BY ALL")


@pytest.fixture
def place(tmp_path):
    """On object storage the same code takes minutes; `test_objects.py` counts what it asks there."""
    return str(tmp_path / "store")


@pytest.fixture(params=["apart", "beside", "alone", "two", "all"])
def filled(store, request):
    """Units in files of their own; beside a segment; in one alone; in two of different sizes; in all of these."""
    media = store.write_media(b"adapter", "safetensors")
    store.commit("finetune", {"stage": "finetune", "version": 1}, {"policies": []}, [media])
    fill(store)
    places = places_of(store)
    if request.param != "apart":
        compact(store)
    if request.param in ("alone", "two", "all"):
        without_originals(store)
    if request.param in ("two", "all"):
        fill(store, units=2, seed=1, at=100)
        places += places_of(store)
        compact(store)
    if request.param == "all":
        fill(store, units=2, seed=2, at=200)
        places += places_of(store)
        kept = [key for stage, key in places if stage == "score"]
        store.discard(kept[0])
        store.discard(kept[-2])
    random.Random(0).shuffle(places)
    return store, list(dict.fromkeys(places))


@pytest.mark.parametrize("level", ["hash", "size", None])
def test_what_is_found_is_what_is_found_one_by_one(filled, level):
    store, places = filled
    found = dict(store.look_up(places, level))
    assert found == one_by_one(store, places, level)
    assert {NOT_THERE} < {one if isinstance(one, str) else one.stage for one in found.values()}
    assert {key: store.verify(key, level or "size") for key in found} == {
        key: one if isinstance(one, str) else None
        for key, one in one_by_one(store, places, level or "size").items()
    }


def test_damage_is_found_as_one_by_one(filled, caplog):
    store, places = filled
    paths = {path.stem: path for path in store.manifest_files()}
    own = [key for stage, key in places if stage == "score" and key in paths]
    for key, damage in zip(own, ("manifest", "cut", "part", "lost"), strict=False):
        manifest = store.manifest(key)
        part = store.path(manifest.parts[0].path)
        match damage:
            case "manifest":
                flip(store, str(paths[key]), 40)
            case "cut":
                part.write_bytes(part.read_bytes()[:-1])
            case "part":
                flip(store, manifest.parts[0].path, 50)
            case "lost":
                part.unlink()
    (media,) = (store.root / "media").rglob("*.safetensors")
    media.write_bytes(b"adapte")
    for level in ("hash", "size", None):
        found = dict(store.look_up(places, level))
        assert found == one_by_one(store, places, level)
        assert not level or "size of media" in " ".join(one for one in found.values() if isinstance(one, str))


@pytest.mark.parametrize("table", ["manifests", "index", "scores"])
def test_of_a_damaged_segment_what_lies_elsewhere_is_found(store, table, caplog):
    fill(store)
    places = places_of(store)
    compact(store)
    segment = store.manifests("segments")[0]
    own = [key for stage, key in places if stage == "score"][:5]
    covered = [path.stem for path in store.manifest_files() if path.parent.name == "score"]
    for key in set(covered) - set(own):
        store.forget(key)
    part = segment.part(table)
    if table == "scores":
        store.path(part.path).unlink()
    else:
        flip(store, part.path, part.bytes // 3)
    segments._indexes.clear()
    segments._live.clear()
    with caplog.at_level(logging.WARNING):
        found = dict(store.look_up(places, "size"))
    assert found == one_by_one(store, places, "size")
    assert {key for stage, key in places if stage == "score" and not isinstance(found[key], str)} == set(own)


def test_a_segment_is_opened_once_for_all_that_it_covers(store, monkeypatch):
    fill(store)
    places = places_of(store)
    compact(store)
    without_originals(store)
    opened, listed = [], []
    whole, files = segments.groups, Store.manifest_files
    monkeypatch.setattr(
        "data.store.segments.groups",
        lambda store, segment, table: opened.append(table) or whole(store, segment, table),
    )
    monkeypatch.setattr(
        Store, "manifest_files", lambda self, stage=None: listed.append(stage) or files(self, stage)
    )
    found = dict(store.look_up(places, "size"))
    assert sum(not isinstance(one, str) for one in found.values()) == 41
    assert opened == ["manifests"]
    assert listed == ["segments", "dropped"]


def test_what_is_remembered_of_segments_is_bounded_and_answers_stay(tmp_path, monkeypatch):
    live = Bounded(30, lambda one: 1 + sum(len(segment.index.keys) for segment in one[1]))
    monkeypatch.setattr(segments, "_indexes", Bounded(30, lambda one: len(one.keys)))
    monkeypatch.setattr(segments, "_live", live)
    stores = [Store.open(tmp_path / str(number), create=True) for number in range(3)]
    before = []
    for seed, store in enumerate(stores):
        fill(store, units=6, seed=seed)
        before.append((scores(store), units(store)))
        compact(store)
        without_originals(store)
    for _ in range(2):
        for store, (told, held) in zip(stores, before, strict=True):
            assert (scores(store), units(store)) == (told, held)
            assert 1 <= len(segments._indexes) <= 2
            assert 1 <= len(segments._live) <= 2
