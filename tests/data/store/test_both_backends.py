"""What a store promises, on each kind of place: a folder, and object storage (moto, on this machine)."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

import data
from data import champion
from data.champion import Champion
from data.copying import copy
from data.errors import StoreError
from data.records import Score
from data.store import Damaged, Store, gc
from data.store.twice import update_twice
from tests.data.store.places import on_both

CHECKOUT = Path(data.__file__).parents[1]


pytestmark = on_both


def rows(count=9):
    return [Score(f"c{i}", "clip", "v1", i / 7, "ok", None, "{}") for i in range(count)]


def commit(store, number=1, media=(b"video" * 1000,)):
    kept = [store.write_media(one, "mp4") for one in media]
    question = {"stage": "score", "version": number}
    return store.commit("score", question, {"scores": rows()}, kept, info={"failed": 0})


def paths(store):
    return {one.path for one in store.backend.entries()} - {"format.json"}


def test_a_committed_unit_is_found_whole_and_read_back(store, place):
    unit = commit(store)
    again = Store.open(place)
    assert again.manifest(unit.key) == unit
    assert again.manifests() == again.manifests("score") == [unit]
    assert again.verify(unit.key) is None
    assert again.read(unit.key, "scores") == rows()
    assert again.read_media(unit.media[0].path) == b"video" * 1000
    assert again.local(unit.media[0].path).read_bytes() == b"video" * 1000
    assert commit(again) == unit
    assert again.manifest("0" * 64) is None


def test_a_store_that_is_not_there_is_named(place):
    with pytest.raises(StoreError, match="no store at"):
        Store.open(place)


def test_what_is_no_store_is_left_alone(store, place):
    store.backend.remove("format.json")
    store.backend.put("letters", b"to my aunt")
    with pytest.raises(StoreError, match="neither a store nor empty"):
        Store.open(place, create=True)
    assert store.read_file("letters") == b"to my aunt"


@pytest.mark.parametrize("which", ["part", "media"])
@pytest.mark.parametrize("harm", ["changed", "cut", "gone"])
def test_a_harmed_file_is_noticed_and_its_unit_is_computed_anew(store, which, harm):
    unit = commit(store)
    item = (unit.parts if which == "part" else unit.media)[0]
    whole = store.read_file(item.path)
    if harm == "gone":
        store.backend.remove(item.path)
    else:
        store.backend.put(item.path, whole[:-1] + (b"" if harm == "cut" else b"?"))
    assert which in store.verify(unit.key)
    if which == "part":
        with pytest.raises(Damaged):
            store.read(unit.key, "scores")
    store.set_unit_aside(unit.key, "a test")
    assert store.manifests() == []
    assert commit(store) == unit
    assert store.verify(unit.key) is None
    log = next(store.read_file(one).decode() for one in store.find("aside/*.jsonl"))
    assert "a test" in log


def test_what_is_set_aside_takes_no_other_things_place(store):
    for content in (b"first", b"second", b"third"):
        store.write_file("rounds/r1/summary.json", content)
        store.set_aside("rounds/r1/summary.json", "a test")
    names = ("summary.json", "summary.json~2", "summary.json~3")
    kept = {name: store.backend.names("aside/rounds/r1") for name in names}
    assert all(name in found for name, found in kept.items())
    assert not store.has("rounds/r1/summary.json")


def test_media_that_nobody_wrote_cannot_be_committed(store):
    media = store.write_media(b"video", "mp4")
    store.backend.remove(media.path)
    with pytest.raises(StoreError, match="not there"):
        store.commit("score", {"stage": "score", "version": 1}, {"scores": rows()}, [media])
    assert store.manifests() == []


WRITER = """
import sys
from data.records import Score
from data.store import Store
store = Store.open(sys.argv[1], create=True)
rows = [Score("c", "clip", sys.argv[2], 1.0, "ok", None, "{}")]
media = store.write_media(b"the same", "mp4")
print(store.commit("score", {"stage": "score", "version": 1}, {"scores": rows}, [media]).digest)
"""

PROMOTER = """
import sys
from data import champion
from data.store import Store
store = Store.open(sys.argv[1])
for i in range(3): champion.promote(store, f"y{sys.argv[2]}-{i}", "r")
"""


def processes(script, place, count):
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, place, str(n)],
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(count)
    ]
    found = [process.communicate() for process in started]
    assert [process.returncode for process in started] == [0] * count, [said for _, said in found]
    return [out for out, _ in found]


def test_of_eight_writers_of_other_rows_one_wins_and_all_read_its(place):
    digests = {one.strip() for one in processes(WRITER, place, 8)}
    store = Store.open(place)
    [unit] = store.manifests()
    assert digests == {unit.digest}
    assert len(store.find("manifests/*/*.json")) == 1
    assert store.verify(unit.key) is None


def test_of_many_promotions_at_once_none_is_lost(store, place):
    processes(PROMOTER, place, 4)
    assert sorted(one.policy_id for one in champion.history(store)) == sorted(
        f"y{n}-{i}" for n in range(4) for i in range(3)
    )


def test_the_champion_moves_back_and_is_read_from_its_copy(store):
    champion.promote(store, "y1", "r1")
    champion.promote(store, "y2", "r2")
    store.backend.put("champion.json", b"{")
    assert champion.read(store) == Champion("y2", "r2")
    assert champion.rollback(store) == Champion("y1", "r1")
    assert json.loads(store.read_file("champion.json")) == json.loads(store.read_file("champion.copy.json"))
    with pytest.raises(champion.ChampionMoved):
        champion.promote(store, "y3", "r3", beaten="y2")
    assert champion.history(store) == [Champion("y1", "r1")]


def test_a_change_that_another_overtakes_is_made_again_of_what_is_there_then(store):
    seen = []

    def change(before):
        seen.append(before)
        if len(seen) == 1:  # another process, which holds no lock
            store.backend.put("rounds/r1/x.json", b'{"n": 7}')
        return {"n": (before or 0) + 1}

    update_twice(store, "rounds/r1/x.json", lambda said: said["n"], change)
    assert seen == [None, 7]
    assert json.loads(store.read_file("rounds/r1/x.json"))["n"] == 8


def test_who_holds_a_lock_keeps_others_out_until_it_lets_go(store, place):
    other = Store.open(place)
    with store.lock("nightly", wait=False):
        with (
            pytest.raises(StoreError, match="another `vidloop nightly` works here"),
            other.lock("nightly", False),
        ):
            pass
        with other.lock("improve", wait=False):
            pass
    with other.lock("nightly", wait=False):
        pass


def test_a_run_s_facts_are_read_back_whoever_wrote_them(store, place):
    for one in (store, Store.open(place)):
        for number in range(3):
            one.log_run("r1", {"event": "stage", "number": number})
    store.log_run("r2", {"event": "stage"})
    found = {}
    for run, text in store.run_logs():
        found.setdefault(run, []).extend(json.loads(line)["event"] for line in text.splitlines())
    assert found == {"r1": ["stage"] * 6, "r2": ["stage"]}


def test_scratch_is_a_folder_of_this_machine_that_goes_with_its_unit(store, place):
    folder = store.scratch("a" * 64)
    (folder / "step").write_bytes(b"weights")
    assert Store.open(place).scratch("a" * 64) == folder
    store.clear_scratch("a" * 64)
    assert not folder.exists()


def test_discarding_forgets_the_unit_and_a_collector_takes_its_media(store):
    unit, other = commit(store), commit(store, 2, (b"video" * 1000, b"more"))
    store.discard(other.key)
    assert store.manifests() == [unit]
    assert gc.collect(store, delete=True).files == ()  # young
    found = gc.collect(store, delete=True, min_age_s=-60)
    assert found.files == (other.media[0].path if other.media[0] not in unit.media else other.media[1].path,)
    assert store.verify(unit.key) is None
    store.write_file("rounds/r1/summary.json", b"{}")
    gc.collect(store, delete=True, min_age_s=-60)
    assert store.has("rounds/r1/summary.json")


def test_a_collector_takes_nothing_that_was_used_after_it_looked(store, monkeypatch):
    lost = store.write_media(b"lost", "mp4")
    since = time.time() - 60
    assert store.backend.sweep([lost.path], since) == set()
    assert store.read_media(lost.path) == b"lost"
    assert store.backend.sweep([lost.path], time.time() + 60) == {lost.path}


def test_a_copy_is_wholly_cached_in_both_directions_and_champions_go_along(store, tmp_path, s3):
    units = [commit(store, number, (f"video {number}".encode() * 99,)) for number in (1, 2)]
    champion.promote(store, "y1", "r1")
    champion.promote(store, "y2", "r2")
    store.write_file("rounds/r1/summary.json", b"{}")
    store.write_file("calibrations/judge-1.json", b"{}")
    store.log_run("r1", {"event": "stage"})
    there = Store.open(s3.url(), create=True)
    done = copy(store, there)
    back = Store.open(tmp_path / "back", create=True)
    copy(there, back)
    for one in (there, back):
        assert one.manifests() == sorted(units, key=lambda unit: unit.key)
        assert [one.verify(unit.key) for unit in units] == [None, None]
        assert champion.history(one) == champion.history(store)
        assert one.has("rounds/r1/summary.json")
        assert one.has("calibrations/judge-1.json")
        assert [run for run, _ in one.run_logs()] == ["r1"]
    again = copy(store, there)
    assert (again.files, again.there) == (0, done.files + done.there)


def test_a_copy_takes_no_damaged_file_and_overwrites_no_champion(store, s3):
    unit = commit(store)
    there = Store.open(s3.url(), create=True)
    champion.promote(there, "mine", "r0")
    with pytest.raises(StoreError, match="champions of its own"):
        copy(store, there)
    champion.rollback(there)
    store.backend.put(unit.media[0].path, b"x" * unit.media[0].bytes)
    with pytest.raises(Damaged, match="sha256 differs"):
        copy(store, there)
    assert there.manifests() == []


def test_what_another_writer_put_there_a_moment_ago_is_not_set_aside(store, monkeypatch):
    store.write_media(b"video", "mp4")
    real, looks = store.backend.size, []

    def size(path):
        looks.append(path)
        if len(looks) == 1:  # before the other one wrote it
            raise FileNotFoundError(path)
        return real(path)

    monkeypatch.setattr(store.backend, "size", size)
    media = store.write_media(b"video", "mp4")
    assert store.fault(media) is None
    assert store.find("aside/*") == store.backend.names("aside") == []
