"""What the tests of the store share: a place for it, of each kind."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from data.store import Store, leases
from tests.s3_server import moto, proxy, s3

__all__ = ["moto", "proxy", "s3"]


@pytest.fixture(params=["folder", pytest.param("objects", marks=pytest.mark.slow)])
def new_place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """Names a store that is not there yet, of the kind of place that the test is about."""
    if request.param == "folder":
        return lambda name: str(tmp_path / name)
    server = request.getfixturevalue("s3")
    return lambda name: f"{server.url()}/{name}"


@pytest.fixture
def place(new_place: Callable[[str], str]) -> str:
    """A store that is not there yet."""
    return new_place("store")


@pytest.fixture
def store(place: str) -> Store:
    """An empty store."""
    return Store.open(place, create=True)


@pytest.fixture
def quick_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks on object storage that stand still for a second are free for this process."""
    monkeypatch.setattr(leases, "TERM_S", 1.5)
    monkeypatch.setattr(leases, "_BEAT_S", 0.2)


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system than `tmp_path`, which may lie in memory (Makefile) or on a disk."""
    for place in ("/dev/shm", "/var/tmp"):
        with tempfile.TemporaryDirectory(dir=place) as folder:
            if Path(folder).stat().st_dev != tmp_path.stat().st_dev:
                yield Path(folder)
                return
    pytest.skip("tests, /dev/shm and /var/tmp lie on one file system")
