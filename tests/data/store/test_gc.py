import os
import shutil
import time

import pytest

from data.errors import StoreError
from data.store import Store, gc
from tests.data.store.places import in_a_folder


@pytest.fixture
def unit(store, make_clip):
    media = store.write_media(b"kept", "mp4")
    clip = make_clip("c1", video_path=media.path)
    return store.commit("generate", {"stage": "generate", "version": 1}, {"clips": [clip]}, [media])


@pytest.fixture
def a_day_later(monkeypatch):
    """From a call on, all that was written until then is old."""

    def pass_a_day():
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 2 * gc.SAFE_AGE_S)

    return pass_a_day


def age(path, seconds):
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_only_what_no_manifest_reaches_is_removed(store, unit, a_day_later):
    lost = store.write_media(b"lost", "mp4")
    store.backend.put("tmp/x.tmp", b"half")
    a_day_later()
    report = gc.collect(store)
    assert report.files == (lost.path, "tmp/x.tmp")
    assert report.bytes == len("lost") + len("half")
    assert not report.deleted
    assert store.read_media(lost.path) == b"lost"

    assert gc.collect(store, delete=True).files == report.files
    assert gc.collect(store, min_age_s=-60).files == ()
    assert store.verify(unit.key) is None


@in_a_folder
def test_checkpoints_that_lie_in_the_store_go_with_their_folder(store, a_day_later):
    old = store.scratch("a" * 64) / "step.safetensors"
    old.write_bytes(b"weights")
    for path in store.root.rglob("*"):
        age(path, 3 * gc.SAFE_AGE_S)
    assert gc.collect(store, delete=True).files == (f"scratch/{'a' * 64}/step.safetensors",)
    assert not (store.root / "scratch" / ("a" * 64)).exists()


def test_what_is_young_is_left_alone(store, unit):
    young = store.write_media(b"being made", "mp4")
    report = gc.collect(store, delete=True)
    assert report.files == ()
    assert report.young == 1
    assert store.read_media(young.path) == b"being made"


@in_a_folder  # moto cannot make an object older: tests/data/store/test_objects.py has its like
def test_a_file_found_and_used_again_is_young_again(store, unit):
    media = store.write_media(b"shared", "mp4")
    age(store.path(media.path), 3 * gc.SAFE_AGE_S)
    assert gc.collect(store).files == (media.path,)
    store.write_media(b"shared", "mp4")  # a unit at work needs it, its manifest is still to come
    assert gc.collect(store, delete=True).files == ()
    assert store.read_media(media.path) == b"shared"


def test_parts_of_a_discarded_unit_go_and_shared_media_stay(store, unit, make_clip):
    clip = store.read(unit.key, "clips")
    other = store.commit("evaluate", {"stage": "evaluate", "version": 1}, {"clips": clip}, unit.media)
    store.discard(unit.key)
    gc.collect(store, delete=True, min_age_s=-60)
    assert store.verify(other.key) is None


def test_nothing_is_removed_while_a_manifest_cannot_be_read(store, unit):
    media = store.write_media(b"lost", "mp4")
    store.backend.put(f"manifests/generate/{unit.key}.json", b"{")
    with pytest.raises(StoreError, match="not a readable manifest"):
        gc.collect(store, delete=True, min_age_s=-60)
    assert store.read_media(media.path) == b"lost"
    assert store.read_media(unit.media[0].path) == b"kept"


def test_rounds_runs_and_the_champion_are_never_garbage(store):
    kept = ("rounds/r1/summary.json", "champion.json")
    for path in kept:
        store.write_file(path, b"{}")
    store.log_run("r1", {})
    gc.collect(store, delete=True, min_age_s=-60)
    assert all(map(store.has, kept))
    assert [run for run, _ in store.run_logs()] == ["r1"]


@in_a_folder
@pytest.mark.parametrize(
    "link",
    [
        "media",
        "media/zz",
        "parts",
        "parts/clips/generate/aa",
        "parts/clips",
        f"scratch/{'a' * 64}",
        f"scratch/{'a' * 64}/deeper/still",
        "scratch",
        "tmp",
    ],
)
def test_nothing_behind_a_symbolic_link_is_listed_or_removed(store, tmp_path, link):
    precious = tmp_path / "precious"
    files = (
        "x.mp4",
        "x.tmp",
        "x.parquet",
        "zz/x.mp4",
        f"{'b' * 64}/step",
        "generate/k/x.parquet",
        "a/b/c/x.parquet",
    )
    for name in files:
        path = precious / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"precious")
    for empty in ("e", "e/mpty", "e/mp/ty"):
        (precious / empty).mkdir(parents=True, exist_ok=True)
    place = store.root / link
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_dir():
        shutil.rmtree(place)
    place.symlink_to(precious)
    everything = sorted(precious.rglob("*"))
    for path in (*everything, precious):
        age(path, 3 * gc.SAFE_AGE_S)

    report = gc.collect(store, delete=True)
    assert (report.files, report.young) == ((), 0)
    assert sorted(precious.rglob("*")) == everything
    assert place.is_symlink()


@in_a_folder
def test_a_link_to_a_file_is_left_and_what_lies_beside_a_link_goes(store, tmp_path):
    precious = tmp_path / "precious.mp4"
    precious.write_bytes(b"precious")
    lost = store.write_media(b"lost", "mp4")
    link = store.path(lost.path).with_name("link.mp4")
    link.symlink_to(precious)
    (store.root / "media" / "gone").symlink_to(tmp_path / "nowhere")
    for path in (precious, store.path(lost.path)):
        age(path, 3 * gc.SAFE_AGE_S)
    assert gc.collect(store, delete=True).files == (lost.path,)
    assert link.read_bytes() == precious.read_bytes() == b"precious"
    assert not store.path(lost.path).exists()


@in_a_folder
def test_a_store_that_is_reached_by_a_link_is_collected(store, tmp_path):
    lost = store.write_media(b"lost", "mp4")
    age(store.path(lost.path), 3 * gc.SAFE_AGE_S)
    (tmp_path / "link").symlink_to(store.root)
    assert gc.collect(Store.open(tmp_path / "link"), delete=True).files == (lost.path,)
    assert not store.path(lost.path).exists()


def test_an_unfinished_file_is_garbage_wherever_it_lies(store, make_score):
    store.commit("score", {"stage": "score", "version": 1}, {"scores": [make_score("c1", 1.0)]})
    names = {
        f"{place}/{'ab' * 16}.tmp"
        for place in ("locks", "manifests", "manifests/score", "rounds/r", "media", "tmp")
    }
    names.add(f"tmp/{'ab' * 16}{'0' * 40}.tmp")
    for name in names:
        store.backend.put(name, b"half")
    store.backend.put("rounds/r/notes.tmp", b"a person's")
    assert set(gc.collect(store, delete=True, min_age_s=-60).files) == names
    assert store.has("rounds/r/notes.tmp")
    assert len(store.manifests()) == 1
