"""Segments: what is asked of a store has the same answer before and after `compact`, whatever comes between."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import data
from data.errors import StoreError
from data.queries import connect, run_query
from data.records import Clip, Pair, Prompt, Score
from data.store import Damaged, Store, gc, segments
from data.store.compaction import Compacted, compact
from data.store.segment_rows import PartWriter
from data.store.segments import live
from tests.data.store.places import in_a_folder

CHECKOUT = Path(data.__file__).parents[1]
SHOWN = {
    view: f"SELECT * FROM {view} ORDER BY ALL"
    for view in ("prompts", "clips", "scores", "pairs", "scores_wide", "lineage")
}


def prompt(name, text="a ball falls"):
    return Prompt(f"p{name}", text, "falling down", "", "train", "t")


def clip(name, seed=0, row=0):
    return Clip(
        f"c{name}", f"p{name % 3}", "a ball falls", "falling down", "train", "base", seed, 64, 64, 17, 8.0,
        "euler", 4, 1.0, 4, row, "", "", "h264", "", row, 0, "cpu", "x",
    )  # fmt: skip


def score(name, value, version="v1"):
    failed = value is None
    return Score(
        f"c{name}", "clip", version, value, "failed" if failed else "ok", "why" if failed else None, "{}"
    )


def fill(store, units=20, seed=0, at=0):
    """Commit units of several tables: failed scores, two versions, and rows that several units hold alike or not."""
    rng = random.Random(seed)
    for number in range(at, at + units):
        names = sorted(rng.sample(range(40), 3))
        clips = [clip(name, row=rng.choice([0, 0, 0, 1])) for name in names]
        tables = {
            "clips": clips,
            "prompts": [prompt(name % 3) for name in {name % 3: name for name in names}.values()],
        }
        made = store.commit(
            "generate", {"stage": "generate", "version": 1, "n": number, "seed": seed}, tables
        )
        values = [score(name, rng.choice([None, 0.25, 0.5]), rng.choice(["v1", "v2"])) for name in names]
        asked = {"stage": "score", "version": 1, "clips": made.digest, "n": number}
        store.commit("score", asked, {"scores": values}, parents=[made.key])
    pairs = [Pair("d1", "p1", "falling down", "c1", f"c{at + 2}", 0.5)]
    store.commit("curate", {"stage": "curate", "version": 1, "n": at}, {"pairs": pairs, "examples": []})


def answers(store):
    return {view: run_query(store, sql) for view, sql in SHOWN.items()}


def units(store):
    """Every unit's manifest, and all its rows."""
    held = [one for one in store.manifests() if one.stage not in segments.OWN]
    return {
        one.key: (one, {part.table: store.arrow([one.key], part.table).to_pylist() for part in one.parts})
        for one in held
    }


@pytest.fixture
def filled(store):
    fill(store)
    return store


def without_originals(store):
    """Take away the files that segments cover, so that every answer must come from them."""
    covered = {path.stem for path in store.manifest_files() if path.parent.name not in segments.OWN}
    covered -= {path.stem for path in segments.tail(store)}
    for key in covered:
        store.forget(key)
    return covered


def test_answers_are_the_same_before_and_after(filled):
    before, held = answers(filled), units(filled)
    assert compact(filled) == Compacted(units=41, left=0, segments=1)
    assert answers(filled) == before
    assert units(filled) == held
    assert compact(filled) == Compacted(units=0, left=0, segments=1)
    assert without_originals(filled) == set(held)
    assert answers(filled) == before
    again = Store.open(filled.url)
    assert {
        key: (again.manifest(key), dict(again_rows(again, one))) for key, (one, _) in held.items()
    } == held
    assert all(again.verify(key) is None for key in held)


def again_rows(store, manifest):
    for part in manifest.parts:
        rows = store.read(manifest.key, part.table)
        yield part.table, store.arrow([manifest.key], part.table).to_pylist()
        assert len(rows) == part.rows


@in_a_folder
def test_many_units_are_read_at_once_in_the_order_asked_for(filled):
    keys = [one.key for one in filled.manifests("score")]
    random.Random(1).shuffle(keys)
    keys = keys * 4  # as many as are read from a segment
    before = filled.arrow(keys, "scores")
    compact(filled)
    without_originals(filled)
    assert filled.arrow(keys, "scores").equals(before)
    assert filled.arrow(keys, "clips").num_rows == 0


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("commit"), st.integers(0, 5)),
        st.tuples(st.just("compact"), st.just(0)),
        st.tuples(st.just("discard"), st.integers(0, 30)),
        st.tuples(st.just("forget"), st.just(0)),
    ),
    min_size=2,
    max_size=6,
)


@pytest.mark.slow
@settings(max_examples=6, deadline=None)
@given(steps=STEPS)
def test_a_store_that_is_compacted_again_and_again_answers_as_one_that_never_was(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("two")
    plain, compacted = (Store.open(folder / name, create=True) for name in ("plain", "compacted"))
    for step, number in (("commit", 3), *steps, ("compact", 0)):
        if step == "commit":
            for store in (plain, compacted):
                fill(store, 3, seed=number)
        elif step == "discard":
            keys = sorted(units(plain))
            for store in (plain, compacted) if keys else ():
                store.discard(keys[number % len(keys)])
        elif step == "compact":
            compact(compacted)
        else:
            without_originals(compacted)
        assert answers(compacted) == answers(plain), (step, number)
    assert units(plain).keys() == {key for key in units(plain) if compacted.manifest(key) is not None}
    assert {key: compacted.manifest(key) for key in units(plain)} == {
        k: m for k, (m, _) in units(plain).items()
    }


def test_a_segment_of_another_version_is_passed_over(filled, monkeypatch):
    before = answers(filled)
    with monkeypatch.context() as patch:
        patch.setattr("data.store.compaction.VERSION", 1)
        compact(filled)
    assert live(filled) == []
    assert answers(filled) == before
    assert compact(filled) == Compacted(units=41, left=0, segments=1)
    assert answers(filled) == before


@in_a_folder
def test_segments_stay_few_and_every_unit_is_in_one(store):
    numbers = []
    for turn in range(12):
        fill(store, 2, seed=turn, at=turn * 2)
        compact(store)
        counting = live(store)
        numbers.append(len(counting))
        assert sum(one.alive for one in counting) == len(units(store))
    assert max(numbers) <= 3


@in_a_folder
def test_the_same_units_give_the_same_bytes(new_place):
    stores = [Store.open(new_place(name), create=True) for name in "ab"]
    for store in stores:
        fill(store, 5)
        compact(store)
    found = [
        {path: store.backend.read(path) for path in store.find("parts/segments/*/*/*.parquet")}
        for store in stores
    ]
    assert found[0]
    assert found[0] == found[1]
    assert stores[0].manifests("segments") == stores[1].manifests("segments")


@in_a_folder
def test_a_large_table_has_several_files(filled, monkeypatch):
    before, held = answers(filled), units(filled)
    monkeypatch.setattr("data.store.segment_rows.FILE_BYTES", 1)
    monkeypatch.setattr("data.store.segment_rows.GROUP_ROWS", 7)
    monkeypatch.setattr(PartWriter.__init__, "__defaults__", (7,))
    compact(filled)
    (segment,) = live(filled)
    assert len(segment.files("scores")) == 9  # of 60 rows
    without_originals(filled)
    assert answers(filled) == before
    assert units(filled).keys() == held.keys() or units(filled) == {}
    assert {key: dict(again_rows(filled, one)) for key, (one, _) in held.items()} == {
        key: rows for key, (_, rows) in held.items()
    }
    fill(filled, 5, seed=9, at=50)
    before = answers(filled)
    compact(filled)  # merged from several files
    assert answers(filled) == before


@in_a_folder
def test_what_is_discarded_is_gone_from_segments_and_comes_back_when_it_is_made_again(filled):
    compact(filled)
    unit = filled.manifests("score")[0]
    rows = filled.read(unit.key, "scores")
    before = answers(filled)
    filled.discard(unit.key)
    assert filled.manifest(unit.key) is None
    with pytest.raises(Damaged, match="holds no unit"):
        filled.read(unit.key, "scores")
    gone = {(row.clip_id, row.reward_version) for row in rows}
    shown = {row[:3:2] for row in run_query(filled, "FROM scores")[1]}
    others = {
        (row.clip_id, row.reward_version)
        for one in filled.manifests("score")
        for row in filled.read(one.key, "scores")
    }
    assert shown == others
    assert gone - others == gone - shown
    compact(filled)
    assert {row[:3:2] for row in run_query(filled, "FROM scores")[1]} == others
    filled.commit("score", unit.question, {"scores": rows}, parents=unit.parents)
    assert answers(filled) == before
    compact(filled)
    assert answers(filled) == before
    assert segments.tail(filled) == []


@in_a_folder
def test_what_is_made_anew_with_another_content_is_what_is_read(filled):
    compact(filled)
    unit = filled.manifests("score")[0]
    filled.discard(unit.key)
    other = [score(99, 0.125)]
    filled.commit("score", unit.question, {"scores": other})
    for _ in range(2):
        assert filled.read(unit.key, "scores") == other
        assert run_query(filled, "SELECT value FROM scores WHERE clip_id = 'c99'")[1] == [(0.125,)]
        compact(filled)
        without_originals(filled)


@pytest.mark.parametrize("when", ["compact.after_file:1", "compact.after_file:3", "compact.before_manifest"])
def test_a_unit_that_is_discarded_while_a_segment_is_made_does_not_come_back(filled, monkeypatch, when):
    unit = filled.manifests("score")[0]
    again = [score(98, 0.125)]
    name, _, nth = when.partition(":")
    passed, threads = [], []

    def meanwhile(point):
        passed.append(point)
        if passed.count(name) == int(nth or 1) and point == name:
            patch.setattr("data.store.segment_rows.failpoint", lambda _: None)
            other = threading.Thread(target=discard)
            threads.append(other)
            other.start()
            if name == "compact.before_manifest":
                return  # it waits for the lock, and finds the segment
            other.join()

    def discard():
        filled.discard(unit.key)
        filled.commit("score", unit.question, {"scores": again})

    with monkeypatch.context() as patch:
        for module in ("compaction", "segment_rows"):
            patch.setattr(f"data.store.{module}.failpoint", meanwhile)
        compact(filled)
    for thread in threads:
        thread.join()
    for _ in range(2):
        assert filled.read(unit.key, "scores") == again
        assert run_query(filled, "SELECT value FROM scores WHERE clip_id = 'c98'")[1] == [(0.125,)]
        compact(filled)
    assert segments.tail(filled) == []


WORKER = """
import sys
from data.store import Store
from data.store.compaction import compact
compact(Store.open(sys.argv[1]))
"""


def killed(place, step):
    env = os.environ | {"VIDLOOP_FAILPOINT": step, "VIDLOOP_FAILPOINT_ACTION": "kill"}
    return subprocess.run(
        [sys.executable, "-c", WORKER, place], cwd=CHECKOUT, env=env, check=False
    ).returncode


@pytest.mark.parametrize(
    "step",
    ["store.after_part:1", "store.mid_write:3", "compact.after_file:4", "compact.before_manifest",
     "store.before_manifest:2", "store.after_manifest:2", "compact.after_manifest"],
)  # fmt: skip
def test_killed_at_any_step_nothing_is_lost_and_the_next_attempt_finishes(new_place, quick_leases, step):
    stores = [Store.open(new_place(name), create=True) for name in "ab"]
    for store in stores:
        fill(store, 5)
    compact(stores[0])
    before, held = answers(stores[0]), units(stores[0])
    assert killed(stores[1].url, step) == -signal.SIGKILL
    assert answers(stores[1]) == before
    compact(stores[1])
    assert answers(stores[1]) == before
    assert units(stores[1]) == held
    assert stores[1].manifests("segments") == stores[0].manifests("segments")
    assert gc.collect(stores[1], delete=True, min_age_s=-60).young == 0
    assert answers(stores[1]) == before
    assert len(stores[1].manifests("dropped")) == 0


def compact_once(place, results):
    try:
        results.put(compact(Store.open(place)).units)
    except StoreError as error:
        results.put(str(error))


def test_of_two_at_once_one_works_and_the_other_says_so(filled):
    before = answers(filled)
    with filled.lock("compact"), pytest.raises(StoreError, match=r"another `vidloop compact` works here"):
        compact(Store.open(filled.url))
    context = multiprocessing.get_context("spawn")  # a fork has no threads for object storage
    results = context.Queue()
    both = [context.Process(target=compact_once, args=(filled.url, results)) for _ in range(2)]
    for one in both:
        one.start()
    said = [results.get(timeout=120) for _ in both]
    for one in both:
        one.join()
    assert 41 in said
    assert len(live(filled)) == 1
    assert answers(filled) == before


@in_a_folder
def test_a_round_beside_it_loses_nothing(filled, new_place):
    stop = threading.Event()
    done = []

    def work():
        other = Store.open(filled.url)
        while not stop.is_set():
            fill(other, 1, seed=7, at=100 + len(done))
            done.append(None)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for _ in range(3):
            compact(filled)
            assert {row[0] for row in run_query(filled, "SELECT chosen FROM pairs")[1]} == {"c1"}
    finally:
        stop.set()
        worker.join()
    compact(filled)
    twin = Store.open(new_place("twin"), create=True)
    fill(twin)
    for number in range(len(done)):
        fill(twin, 1, seed=7, at=100 + number)
    assert answers(filled) == answers(twin)


def flip(store, path, position):
    content = bytearray(store.backend.read(path))
    content[position] ^= 1
    store.backend.put(path, bytes(content))


@in_a_folder  # an object does not rot
@pytest.mark.parametrize("table", ["scores", "index", "manifests"])
def test_a_damaged_segment_is_named_and_set_aside_and_nothing_is_lost(filled, table):
    from tasks.scrub import scrub

    before, held = answers(filled), units(filled)
    compact(filled)
    (segment,) = filled.manifests("segments")
    part = segment.part(table)
    flip(filled, part.path, part.bytes // 3)
    fresh = Store.open(filled.url)
    segments._indexes.clear()
    segments._live.clear()
    if table != "manifests":
        with pytest.raises(Damaged, match=r"vidloop scrub --heal"):
            answers(fresh)
    assert {
        key: (fresh.manifest(key), dict(again_rows(fresh, one))) for key, (one, _) in held.items()
    } == held
    assert [fault.path for fault in scrub(filled.backend, heal=True)] == [part.path]
    assert answers(fresh) == before
    assert compact(fresh).units == 41
    assert answers(fresh) == before


@in_a_folder
def test_a_damaged_unit_is_left_out(filled):
    unit = filled.manifests("score")[0]
    flip(filled, unit.parts[0].path, 50)
    assert compact(filled) == Compacted(units=40, left=1, segments=1)
    with pytest.raises(Damaged, match="sha256 of part"):
        answers(filled)
    filled.set_unit_aside(unit.key, "damaged")
    answers(filled)


@in_a_folder
def test_few_units_may_wait(filled):
    assert compact(filled, least=42) == Compacted(units=0, left=41, segments=0)
    assert compact(filled, least=41) == Compacted(units=41, left=0, segments=1)


def test_gc_leaves_what_segments_hold(filled):
    compact(filled)
    before = answers(filled)
    assert gc.collect(filled, delete=True, min_age_s=-60).files == ()
    without_originals(filled)
    assert gc.collect(filled, delete=True, min_age_s=-60).files == ()
    assert answers(filled) == before


def test_gc_removes_segments_that_others_took_the_place_of_and_media_stay(store):
    media = store.write_media(b"adapter", "safetensors")
    store.commit("finetune", {"stage": "finetune", "version": 1}, {"policies": []}, [media])
    for turn in range(3):
        fill(store, 2, seed=turn, at=turn * 2)
        compact(store)
    unit = store.manifests("score")[0]
    store.discard(unit.key)
    before, files = answers(store), {one.key: len(one.parts) + 1 for one in store.manifests("segments")}
    (counting,) = live(store)
    assert len(files) > 1
    assert gc.collect(store, delete=True).files == ()  # they may be read
    assert [one.key for one in store.manifests("segments")] == sorted(files)
    without_originals(store)
    gc.collect(store, delete=True, min_age_s=-60)
    assert [one.key for one in store.manifests("segments")] == [counting.manifest.key]
    assert store.manifest(unit.key) is None
    gc.collect(store, delete=True, min_age_s=-60)
    assert {one.question["segment"] for one in store.manifests("dropped")} == {counting.manifest.key}
    assert answers(store) == before
    assert store.read_media(media.path) == b"adapter"


@in_a_folder
def test_connecting_opens_no_covered_manifest(filled, monkeypatch):
    compact(filled)
    read = []
    whole = Store.manifest_at
    monkeypatch.setattr(Store, "manifest_at", lambda self, path: read.append(path) or whole(self, path))
    segments._live.clear()
    connect(filled).close()
    assert [path.parent.name for path in read] == ["segments"]
