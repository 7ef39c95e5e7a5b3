"""A whole round on object storage leaves what it leaves in a folder, byte for byte, whatever is killed or fails."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from data import champion
from data.store import Store, backend_of, gc
from tests.s3_server import S3, Proxy, moto, proxy, s3  # noqa: F401
from tests.tiny_round import Ended, Tiny, committed

pytestmark = pytest.mark.slow
Command = Callable[..., Ended]


def play(vidloop: Command, tiny: Tiny, store: str, **environment: str) -> Ended:
    return vidloop("round", "--plain", "--recipe", tiny.recipe, "--store", store, **environment)


def objects(url: str) -> dict[str, bytes]:
    """Every object that holds committed work."""
    backend = backend_of(url)
    kept = ("manifests", "parts", "media")
    return {one.path: backend.read(one.path) for one in backend.entries() if one.path.split("/")[0] in kept}


@pytest.fixture(scope="module")
def in_a_folder() -> dict[str, bytes]:
    """What the tiny round leaves in a folder; filled by the first that needs it."""
    return {}


@pytest.fixture
def whole(in_a_folder: dict[str, bytes], vidloop: Command, tiny: Tiny) -> dict[str, bytes]:
    """What the tiny round leaves in a folder."""
    if not in_a_folder:
        assert play(vidloop, tiny, str(tiny.store)).code == 0
        in_a_folder.update(committed(tiny.store))
    return in_a_folder


def test_a_round_is_killed_at_durable_steps_and_the_same_command_finishes_it(
    s3: S3, vidloop: Command, tiny: Tiny, whole: dict[str, bytes]
) -> None:
    url = s3.url()
    for step in (
        "store.mid_write:12",
        "store.after_media:6",
        "store.after_part:4",
        "store.before_manifest:5",
    ):
        assert play(vidloop, tiny, url, VIDLOOP_FAILPOINT=step).code == -signal.SIGKILL
        store = Store.open(url)
        assert all(store.verify(unit.key) is None for unit in store.manifests())
    ended = play(vidloop, tiny, url)
    assert ended.code == 0, ended.err
    assert objects(url) == whole
    again = play(vidloop, tiny, url)
    assert "5 cached, 0 computed" in again.out
    assert objects(url) == whole
    # And what a person asks of it.
    assert "17" in vidloop("query", "SELECT count(*) FROM scores_wide", "--store", url).out
    assert vidloop("scrub", "--store", url).out.startswith("nothing is damaged")
    assert "<html" in Path(vidloop("report", "--store", url).out.splitlines()[-1]).read_text("utf-8")
    assert champion.read(Store.open(url)) is None


@pytest.mark.parametrize("fate", ["500", "503", "hang"])
def test_a_round_goes_on_past_a_service_that_fails_and_after_one_that_is_down(
    s3: S3, proxy: Proxy, vidloop: Command, tiny: Tiny, whole: dict[str, bytes], fate: str
) -> None:
    url = s3.url()
    within = {"VIDLOOP_STORE_SECONDS": "8"}

    def fails(number: int, method: str, path: str) -> str | None:
        down = sum(1 for one in proxy.requests if one[0] == "PUT" and "/manifests/" in one[1]) > 4
        return fate if down or number % 40 == 7 else None

    proxy.fate = fails
    ended = play(vidloop, tiny, url, **within)
    assert ended.code != 0
    assert url in ended.err + ended.out
    proxy.fate = lambda number, method, path: fate if number % 40 == 7 else None
    ended = play(vidloop, tiny, url, **within)
    assert ended.code == 0, ended.err
    proxy.fate = lambda number, method, path: None
    assert objects(url) == whole


def test_a_collector_beside_a_round_takes_nothing_that_the_round_needs(
    s3: S3, vidloop: Command, tiny: Tiny, whole: dict[str, bytes]
) -> None:
    url = s3.url()
    store = Store.open(url, create=True)
    lost = store.write_media(b"of a unit that was never committed", "mp4")
    ended = threading.Event()
    found: list[gc.Garbage] = []

    def collect() -> None:
        while not ended.is_set():
            # Far below the day that it is by default, and longer than a unit of this round takes.
            found.append(gc.collect(Store.open(url), delete=True, min_age_s=180))

    collector = threading.Thread(target=collect)
    collector.start()
    try:
        done = play(vidloop, tiny, url)
    finally:
        ended.set()
        collector.join()
    assert done.code == 0, done.err
    assert len(found) > 1
    taken = {path for one in [*found, gc.collect(store, delete=True, min_age_s=-60)] for path in one.files}
    assert taken == {lost.path}
    assert objects(url) == whole
