"""A store on object storage where the service, the network or a process fails: moto, and a proxy before it."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

import data
from data import champion
from data.errors import StoreError
from data.records import Score
from data.store import NOT_THERE, Store, backend_of, gc, objects
from data.store.cache import Cache
from tests.s3_server import BUCKET, KEY, SECRET

CHECKOUT = Path(data.__file__).parents[1]
ROWS = [Score(f"c{i}", "clip", "v1", i / 7, "ok", None, "{}") for i in range(9)]
# One unit with every kind of write, and the champion.
WORK = """
import sys
from data import champion
from data.records import Score
from data.store import Store
store = Store.open(sys.argv[1], create=True)
media = [store.write_media(b"video" * 1000, "mp4"), store.write_media(b"latent" * 1000, "safetensors")]
rows = [Score(f"c{i}", "clip", "v1", i / 7, "ok", None, "{}") for i in range(9)]
store.commit("score", {"stage": "score", "version": 1}, {"scores": rows}, media, info={"failed": 0})
champion.promote(store, "y1", "r1")
"""


def work(url, **environment):
    done = subprocess.run(
        [sys.executable, "-c", WORK, url],
        cwd=CHECKOUT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stderr


def everything(url):
    backend = backend_of(url)
    return {
        one.path: backend.read(one.path)
        for one in backend.entries()
        if one.path.split("/")[0] not in ("locks", "tmp", "runs", "rewards")  # what holds times is no answer
    }


@pytest.fixture(scope="module")
def undisturbed():
    """Objects of the work as nothing went wrong; filled by the first that needs it."""
    return {}


def reference(undisturbed, s3):
    if not undisturbed:
        url = s3.url()
        assert work(url)[0] == 0
        undisturbed.update(everything(url))
    return undisturbed


@pytest.mark.parametrize("fate", ["500", "503", "hang", "answer lost"])
def test_a_service_that_fails_in_passing_disturbs_nothing(s3, proxy, undisturbed, monkeypatch, fate):
    whole = reference(undisturbed, s3)
    monkeypatch.setenv("VIDLOOP_STORE_SECONDS", "6")
    proxy.fate = lambda number, method, path: fate if number % 7 == 3 else None
    url = s3.url()
    assert work(url) == (0, "")
    proxy.fate = lambda number, method, path: None
    assert everything(url) == whole


@pytest.mark.parametrize("fate", ["500", "503", "hang"])
def test_a_service_that_keeps_failing_ends_the_command_and_the_same_command_goes_on(
    s3, proxy, undisturbed, monkeypatch, fate
):
    whole = reference(undisturbed, s3)
    monkeypatch.setenv("VIDLOOP_STORE_SECONDS", "3")
    began = threading.Event()

    def fails_from_the_first_part(number, method, path):
        if method == "PUT" and "/parts/" in path:
            began.set()
        return fate if began.is_set() else None

    proxy.fate = fails_from_the_first_part
    url, since = s3.url(), time.monotonic()
    code, said = work(url)
    assert code == 1
    assert "StoreError" in said
    assert url in said
    assert time.monotonic() - since < 40
    proxy.fate = lambda number, method, path: None
    assert Store.open(url).manifests() == []
    assert work(url)[0] == 0
    assert everything(url) == whole


@pytest.mark.parametrize("ignored", ["both", "if-match"])
def test_a_service_that_ignores_conditions_is_refused_and_nothing_is_written(s3, proxy, ignored):
    url = s3.url()

    def ignores(number, method, path):
        # A create sends If-None-Match to a name that is free, and the second one is what tells.
        swapped = len([one for one in proxy.requests if one[0] == "PUT" and "/tmp/" in one[1]])
        return "ignore conditions" if method == "PUT" and (ignored == "both" or swapped > 2) else None

    proxy.fate = ignores
    with pytest.raises(StoreError, match=r"ignores If-(None-)?Match.*in a folder"):
        Store.open(url, create=True)
    proxy.fate = lambda number, method, path: None
    assert list(backend_of(url).entries()) == []
    Store.open(url, create=True)
    # Who opens it without making it is told as well, before anything is written.
    proxy.fate = ignores
    proxy.requests.clear()
    with pytest.raises(StoreError, match="ignores If-"):
        champion.promote(Store.open(url), "y1", "r1")
    with pytest.raises(StoreError, match="ignores If-"):
        Store.open(url).write_media(b"video", "mp4")


@pytest.mark.parametrize(
    ("fate", "told"),
    [
        ("403", r"access is refused \(403 AccessDenied\).*list the bucket"),
        ("skew", r"clock wrong \(403 RequestTimeTooSkewed\)"),
        ("badkey", r"credentials are not accepted \(403 InvalidAccessKeyId\)"),
        ("503", r"overloaded at http://127.0.0.1:\d+ \(503 SlowDown\)"),
    ],
)
def test_what_the_service_refuses_is_said_in_words_and_without_a_secret(s3, proxy, monkeypatch, fate, told):
    monkeypatch.setenv("VIDLOOP_STORE_SECONDS", "1")
    store, said = Store.open(s3.url(), create=True), []
    proxy.fate = lambda number, method, path: fate
    for ask in (
        lambda: store.manifest("0" * 64),
        lambda: store.write_media(b"video", "mp4"),
        lambda: store.read_file("champion.json"),
        lambda: Store.open(store.url),
        lambda: champion.history(store),
    ):
        # The answer to a HEAD has no body, so no code.
        with pytest.raises(StoreError, match=rf"{told}|\((403|503)\)") as failed:
            ask()
        said.append(str(failed.value))
        assert store.url in str(failed.value)
        assert KEY not in str(failed.value)
        assert SECRET not in str(failed.value)
    assert any(re.search(told, one) for one in said)


def test_a_bucket_or_a_service_that_is_not_there_is_named(s3, monkeypatch):
    monkeypatch.setenv("VIDLOOP_STORE_SECONDS", "1")
    with pytest.raises(StoreError, match=r"there is no bucket 'no-such-bucket' at http://127\.0\.0\.1"):
        Store.open("s3://no-such-bucket/store", create=True)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:word@127.0.0.1:9")
    with pytest.raises(StoreError, match=r"service at http://127\.0\.0\.1:9 cannot be reached"):
        Store.open(f"s3://{BUCKET}/store")
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    with pytest.raises(StoreError, match="AWS_ALLOW_HTTP=true"):
        Store.open(f"s3://{BUCKET}/store")


@pytest.mark.parametrize(
    "url",
    ["s3://", "s3://b", "s3://BIG/x", "s3://key:secret@bucket/x", "s3://bucket/../x", "s3://bucket/a b"],
)
def test_what_is_no_url_of_a_store_is_refused(url):
    with pytest.raises(StoreError, match="it must be s3://BUCKET/PREFIX") as failed:
        backend_of(url)
    assert "secret" not in str(failed.value)


@pytest.mark.parametrize("said", ["soon", "-1", "0", "1e9"])
def test_a_patience_that_is_none_is_refused(monkeypatch, said):
    monkeypatch.setenv("VIDLOOP_STORE_SECONDS", said)
    with pytest.raises(StoreError, match="VIDLOOP_STORE_SECONDS"):
        backend_of("s3://bucket/store")


def test_a_large_object_is_written_in_pieces_read_in_pieces_and_verified(s3):
    store = Store.open(s3.url(), create=True)
    large = os.urandom(1 << 20) * 19
    media = store.write_media(large, "safetensors")
    assert store.fault(media) is None
    assert store.read_media(media.path) == large
    assert store.local(media.path).read_bytes() == large


def test_media_come_once_from_the_service_and_a_damaged_cache_is_had_again(s3, proxy):
    store = Store.open(s3.url(), create=True)
    media = store.write_media(b"video" * 1000, "mp4")
    assert store.read_media(media.path) == b"video" * 1000
    proxy.requests.clear()
    assert store.read_media(media.path) == b"video" * 1000
    assert proxy.requests == []
    copy = store.local(media.path)
    copy.write_bytes(b"rotten" * 1000)
    assert store.read_media(media.path) == b"video" * 1000


def test_a_changed_object_is_never_read_as_what_it_was(s3):
    store = Store.open(s3.url(), create=True)
    media = store.write_media(b"video" * 1000, "mp4")
    store.backend.put(media.path, b"other" * 1000)
    for _ in range(2):
        with pytest.raises(StoreError, match="was changed after it was written"):
            store.read_media(media.path)


def test_the_cache_is_bounded_and_the_longest_unused_goes_first(tmp_path, monkeypatch):
    monkeypatch.setenv("VIDLOOP_CACHE_GB", "0.00001")  # 10 kB
    cache = Cache(tmp_path)
    for number in range(6):
        path = cache.put(f"media/aa/{number}.mp4", lambda file: file.write_bytes(b"x" * 4000))
        then = time.time() - 10_000 + number
        os.utime(path, (then, then))
    held = {path.name for path in tmp_path.glob("media/*/*")}
    assert held == {"4.mp4", "5.mp4"}
    monkeypatch.setenv("VIDLOOP_CACHE_GB", "much")
    with pytest.raises(StoreError, match="VIDLOOP_CACHE_GB"):
        cache.put("media/aa/x.mp4", lambda file: file.write_bytes(b"x"))


def test_the_lock_of_a_process_that_died_is_taken_over(s3, quick_leases):
    store, held = Store.open(s3.url(), create=True), "locks/nightly.json"
    store.backend.put(held, b'{"holder": "somebody who was killed", "beat": 3}')
    since = time.monotonic()
    with store.lock("nightly", wait=False):
        assert 1.4 < time.monotonic() - since < 10
        with pytest.raises(StoreError, match="another"), Store.open(store.url).lock("nightly", wait=False):
            pass
    assert json.loads(store.read_file(held))["holder"] == ""


def test_of_many_that_take_over_one_lock_one_holds_it(s3, quick_leases):
    store = Store.open(s3.url(), create=True)
    store.backend.put("locks/champion.json", b'{"holder": "gone", "beat": 3}')
    within, most = [], []

    shared = Store.open(store.url)

    def one(number):
        with (shared if number % 2 else Store.open(store.url)).lock("champion"):
            within.append(1)
            most.append(len(within))
            time.sleep(0.3)
            within.pop()

    threads = [threading.Thread(target=one, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 4


def test_a_lock_that_was_lost_is_noticed_before_the_next_writing(s3, quick_leases):
    store = Store.open(s3.url(), create=True)
    with store.lock("nightly"):
        store.write_file("improvements/a/summary.json", b"{}")
        store.backend.put("locks/nightly.json", b'{"holder": "another", "beat": 1}')
        time.sleep(1)
        with pytest.raises(StoreError, match="could not keep the lock"):
            store.write_file("improvements/a/summary.json", b"{}")
    assert json.loads(store.read_file("locks/nightly.json"))["holder"] == "another"


def test_an_old_object_that_is_used_again_is_young_and_a_collector_is_waited_for(s3, monkeypatch):
    store = Store.open(s3.url(), create=True)
    media = store.write_media(b"video", "mp4")
    backend = store.backend
    real = backend._head
    old = datetime(2020, 1, 1, tzinfo=UTC)
    first = []

    def head(path):  # what moto cannot do: an object of years ago, until it is written again
        found = dict(real(path))
        if path == media.path and not first:
            first.append(path)
            return found | {"last_modified": old}
        return found

    monkeypatch.setattr(backend, "_head", head)
    collector, looked, deleted = Store.open(store.url), threading.Event(), threading.Event()

    def collect():
        with collector.lock("gc"):
            looked.set()
            time.sleep(1)
            collector.backend._delete(media.path)  # it looked before the object was written anew
            deleted.set()

    thread = threading.Thread(target=collect)
    thread.start()
    looked.wait()
    assert backend.keep(media.path, b"video") is False
    assert deleted.is_set()
    thread.join()
    first.clear()
    monkeypatch.setattr(backend, "_head", real)
    assert store.write_media(b"video", "mp4") == media
    assert store.fault(media) is None


def test_a_collector_beside_writers_takes_nothing_that_is_reached_or_young(s3):
    store, stop, found = Store.open(s3.url(), create=True), threading.Event(), []

    def collect():
        while not stop.is_set():
            found.append(gc.collect(Store.open(store.url), delete=True).files)

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        for number in range(6):
            media = store.write_media(f"video {number}".encode() * 100, "mp4")
            question = {"stage": "score", "version": number}
            unit = store.commit("score", question, {"scores": ROWS}, [media])
            assert store.verify(unit.key) is None
    finally:
        stop.set()
        thread.join()
    assert found
    assert not any(found)
    assert all(store.verify(unit.key) is None for unit in store.manifests())


def test_queries_read_this_store_s_tables_and_nothing_else(s3):
    from data.errors import DataError
    from data.queries import run_query

    store = Store.open(s3.url(), create=True)
    media = store.write_media(b"video", "mp4")
    store.commit("score", {"stage": "score", "version": 1}, {"scores": ROWS}, [media])
    store.log_run("r1", {"stage": "score", "seconds": 1.5})
    assert run_query(store, "SELECT count(*), max(value) FROM scores")[1] == [(9, 8 / 7)]
    assert run_query(store, "SELECT run_id, seconds FROM timings")[1] == [("r1", 1.5)]
    other = Store.open(s3.url(), create=True)
    other.write_file("rounds/r1/summary.json", b'{"secret": 1}')
    for path in (
        other.where("rounds/r1/summary.json"), store.where("format.json"), store.where(media.path),
        f"{store.url}/parts/../format.json", f"{store.url}/rounds/../../{other.url.rpartition('/')[2]}/format.json",
        "/etc/hostname",
    ):  # fmt: skip
        with pytest.raises(DataError) as failed:
            run_query(store, f"SELECT content FROM read_text('{path}')")
        assert SECRET not in str(failed.value)
        assert "Traceback" not in str(failed.value)


FORK = """
import os, sys
from data.errors import StoreError
from data.store import Store
store = Store.open(sys.argv[1], create=True)
if not os.fork():
    try:
        store.manifests()
    except StoreError as error:
        print(error)
else:
    os.wait()
"""


def test_a_fork_of_a_process_that_used_it_is_told_so_and_does_not_wait_for_ever(s3):
    done = subprocess.run(
        [sys.executable, "-c", FORK, s3.url()], cwd=CHECKOUT, capture_output=True, text=True, timeout=60
    )
    assert "was forked from one that has used object storage" in done.stdout


def test_no_secret_is_in_any_object(s3):
    url = s3.url()
    assert work(url)[0] == 0
    store = Store.open(url)
    store.log_run("r1", {"event": "stage"})
    store.set_aside("champion.json", "a test")
    said = b"".join(store.read_file(one.path) for one in store.backend.entries())
    assert SECRET.encode() not in said
    assert KEY.encode() not in said


def counted(requests):
    """How many of each method, listings apart."""
    return Counter("LIST" if "list-type" in path else method for method, path in requests)


def test_many_units_are_looked_up_in_a_request_each_and_a_few_listings(s3, proxy):
    store = Store.open(s3.url(), create=True)
    places = []
    for number in range(24):
        media = [store.write_media(b"%d" % number, "mp4"), store.write_media(b"%d" % number, "safetensors")]
        unit = store.commit("score", {"stage": "score", "version": 1, "n": number}, {"scores": ROWS}, media)
        places.append((unit.stage, unit.key))
    proxy.requests.clear()
    found = dict(Store.open(store.url).look_up(places, "size"))
    assert {one.key for one in found.values()} == {key for _, key in places}
    asked = counted(proxy.requests)
    assert asked["GET"] <= 24 + 2  # each manifest, and format.json
    assert asked["HEAD"] <= 2
    assert asked["LIST"] <= 4
    # What is wrong is found as one by one.
    cut, gone, lost = (found[key] for _, key in places[:3])
    store.backend.put(cut.media[0].path, b"")
    store.backend.remove(gone.parts[0].path)
    store.backend.remove(f"manifests/score/{lost.key}.json")
    again = dict(store.look_up([*places, ("score", "0" * 64)], "size"))
    assert "size of media" in again.pop(cut.key)
    assert "missing part" in again.pop(gone.key)
    assert again.pop(lost.key) == again.pop("0" * 64) == NOT_THERE
    assert again == {key: one for key, one in found.items() if key in again}


def test_of_a_store_of_which_little_is_asked_little_is_listed(s3, proxy, monkeypatch):
    monkeypatch.setattr(objects, "_PAGE", 2)  # what a page of a thousand is to a million objects
    store = Store.open(s3.url(), create=True)
    paths = [store.write_media(b"%d" % number, "mp4").path for number in range(12)]
    proxy.requests.clear()
    assert store.backend.sizes(paths[::2]) == {} or counted(proxy.requests)["LIST"] == 1
    assert counted(proxy.requests)["LIST"] <= 2
