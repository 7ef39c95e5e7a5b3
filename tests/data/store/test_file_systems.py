"""A store on file systems that lack something: it works, or says at its opening what is missing and what to do."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.testing

import flows.cli.doctor
from data import champion, device_lock
from data.errors import ServiceError, StoreError
from data.records import Score
from data.store import Store, gc, trials
from flows.cli.app import app

COMMANDS = (flows.cli.doctor,)
MakeScore = Callable[..., Score]
NO_LINKS = [errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK]
NO_LOCKS = [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL]


@pytest.fixture
def place(tmp_path: Path) -> str:
    """All of this is about folders."""
    return str(tmp_path / "store")


@pytest.fixture(autouse=True)
def every_opening_is_the_first_of_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "_working", set())


def fails(monkeypatch: pytest.MonkeyPatch, place: Any, name: str, code: int, where: str = "") -> None:
    """A call of the system fails so, for paths that hold `where`."""
    real = getattr(place, name)

    def call(*args: Any, **more: Any) -> Any:
        told = args[0]
        path = os.readlink(f"/proc/self/fd/{told}") if isinstance(told, int) else str(told)
        if where not in path or (name == "fsync" and not os.path.isdir(path)):
            return real(*args, **more)
        raise OSError(code, os.strerror(code), path)

    monkeypatch.setattr(place, name, call)


def no_rename(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """renameat2(2) fails so, as on a file system that knows no flags of it."""

    class Library:
        @staticmethod
        def renameat2(*_: Any) -> int:
            ctypes.set_errno(code)
            return -1

    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Library)


def live(root: Path, make_score: MakeScore) -> Store:
    """All that a store does: commit, find, repair, discard, promote, lock and collect."""
    store = Store.open(root, create=True)
    media = store.write_media(b"video", "mp4")
    question = {"stage": "score", "version": 1}
    manifest = store.commit("score", question, {"scores": [make_score("c1", 1.0)]}, [media])
    again = store.commit("score", question, {"scores": [make_score("c1", 0.0)]}, [media])
    assert again == manifest, "the first stays"
    assert store.verify(manifest.key) is None
    store.path(media.path).write_bytes(b"harmed")
    assert store.verify(manifest.key) is not None
    store.write_media(b"video", "mp4")
    assert store.verify(manifest.key) is None
    champion.promote(store, "m1", "r1")
    champion.promote(store, "m2", "r2")
    held = champion.read(store)
    assert held is not None
    assert held.policy_id == "m2"
    locked = pytest.raises(StoreError, match="another `vidloop nightly`")
    with store.lock("nightly", wait=False), locked, store.lock("nightly", wait=False):
        pass
    lost = store.write_media(b"lost", "mp4")
    assert gc.collect(store, delete=True).files == ()
    old = time.time() - 3 * gc.SAFE_AGE_S
    os.utime(store.path(lost.path), (old, old))
    left = () if (root / "media").is_symlink() else (lost.path,)
    assert gc.collect(store, delete=True).files == left
    store.discard(manifest.key)
    assert store.manifest(manifest.key) is None
    assert [path for path in root.rglob("*.tmp") if path.is_file()] == []
    return Store.open(root, create=True)


def faults(root: Path) -> list[str]:
    return [one.fault for one in trials.trials(root) if one.fault]


# -- what a store does without ------------------------------------------------------------------------------


@pytest.mark.parametrize("code", NO_LINKS)
def test_without_hard_links_a_rename_that_overwrites_nothing_does(
    code: int, tmp_path: Path, make_score: MakeScore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails(monkeypatch, os, "link", code)
    store = live(tmp_path / "store", make_score)
    assert faults(store.root) == []


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.ENOSYS])
def test_without_fsync_of_folders_the_same_is_done_and_doctor_says_so(
    code: int, tmp_path: Path, make_score: MakeScore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails(monkeypatch, os, "fsync", code)
    store = live(tmp_path / "store", make_score)
    assert faults(store.root) == []
    assert any(one.what.startswith("folders are not synced: ") for one in trials.trials(store.root))


@pytest.mark.parametrize("name", ["media", "parts", "manifests", "rounds", "scratch", "locks", "tmp"])
def test_a_folder_behind_a_link_on_another_disk_works(
    name: str, tmp_path: Path, other_disk: Path, make_score: MakeScore
) -> None:
    root = tmp_path / "store"
    root.mkdir()
    (root / name).symlink_to(other_disk)
    store = live(root, make_score)
    assert faults(root) == []
    said = [one.what for one in trials.trials(root)]
    assert f"{name} is on another file system, behind a symbolic link, which gc does not follow" in said
    assert f"files are replaced in {name}" in said
    assert store.manifests() == []


@pytest.mark.parametrize("name", ["replace", "link"])
def test_two_mounts_of_one_file_system_are_two_disks(
    name: str, tmp_path: Path, make_score: MakeScore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have one device number, and yet nothing can be moved between them."""
    real = getattr(os, name)

    def call(source: Path, target: Path) -> None:
        if Path(source).parent != Path(target).parent:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(source), None, str(target))
        real(source, target)

    monkeypatch.setattr(os, name, call)
    live(tmp_path / "store", make_score)


def test_what_a_kill_leaves_beside_a_part_is_garbage(store: Store, make_score: MakeScore) -> None:
    manifest = store.commit("score", {"stage": "score"}, {"scores": [make_score("c1", 1.0)]})
    part = store.path(manifest.parts[0].path)
    left = part.with_name("0123.tmp")
    left.write_bytes(b"half")
    os.utime(left, (0, 0))
    assert gc.collect(store, delete=True).files == (left.relative_to(store.root).as_posix(),)
    assert store.verify(manifest.key) is None


# -- what it is refused for ---------------------------------------------------------------------------------


def refused(root: Path, *words: str) -> None:
    """Refused when it is opened to be written to, made anew or not, with these words; reading goes on."""
    with pytest.raises(StoreError) as error:
        Store.open(root, create=True)
    for word in (*words, str(root)):
        assert word in str(error.value)


@pytest.mark.parametrize("code", NO_LOCKS)
@pytest.mark.parametrize("new", [True, False])
def test_without_locks_it_is_refused_with_what_nfs_needs(
    code: int, new: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "store"
    if not new:
        Store.open(root, create=True)
        trials._working.clear()
    fails(monkeypatch, fcntl, "flock", code)
    refused(
        root, "its file system has no locks", os.strerror(code), "rpc.statd", "local_lock=flock", "--store"
    )
    store = Store.open(root)
    assert store.manifests() == []
    with pytest.raises(StoreError, match="has no locks"), store.lock("champion"):
        pass


def test_locks_behind_a_link_on_a_disk_that_has_them_are_enough(
    tmp_path: Path, other_disk: Path, make_score: MakeScore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The remedy that the refusal names."""
    fails(monkeypatch, fcntl, "flock", errno.ENOLCK, where=str(tmp_path))
    root = tmp_path / "store"
    root.mkdir()
    refused(root, f"{root / 'locks'}: its file system has no locks", "make this folder a symbolic link")
    (root / "locks").rmdir()
    (root / "locks").symlink_to(other_disk)
    live(root, make_score)


def test_locks_that_are_given_to_two_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    refused(tmp_path / "store", "locks are given to two at once")


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.ENOTSUP])
@pytest.mark.parametrize("new", [True, False])
def test_where_nothing_keeps_the_first_of_two_it_is_refused(
    code: int, new: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "store"
    if not new:
        Store.open(root, create=True)
        trials._working.clear()
    fails(monkeypatch, os, "link", errno.EPERM)
    no_rename(monkeypatch, code)
    refused(root, "neither hard links nor a rename that overwrites nothing", "--store")


def test_a_link_that_overwrites_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", shutil.copy)
    refused(tmp_path / "store", "a file that is there is overwritten")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.EROFS, "Read-only file system; make the store writable"),
        (errno.EACCES, "Permission denied; make the store writable"),
        (errno.EDQUOT, "disk full"),
        (errno.ENOSPC, "disk full"),
        (errno.ENAMETOOLONG, "names of 80 characters"),
        (errno.EIO, "Input/output error"),
    ],
)
@pytest.mark.parametrize("name", ["media", "tmp"])
def test_what_cannot_be_written_is_refused_before_any_work(
    name: str, code: int, words: str, tmp_path: Path, other_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "store"
    Store.open(root, create=True)
    (root / "media").symlink_to(other_disk)
    trials._working.clear()
    real = open

    def call(path: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
        if "x" in mode and name in Path(path).parts:
            raise OSError(code, os.strerror(code), str(path))
        return real(path, mode, *args, **more)

    monkeypatch.setattr("builtins.open", call)
    refused(root, words, name)


def test_a_link_that_leads_nowhere_asks_for_its_disk(tmp_path: Path) -> None:
    root = tmp_path / "store"
    Store.open(root, create=True)
    trials._working.clear()
    (root / "media").symlink_to(tmp_path / "not mounted")
    refused(root, "the symbolic link leads to no folder; is its disk mounted?", "media")


def test_a_clock_that_is_wrong_is_for_doctor_to_say(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 30 * 3600)
    (fault,) = faults(store.root)
    assert "differ from this machine's clock by 30.0 h" in fault
    Store.open(store.root, create=True)


def test_a_store_is_tried_once_a_process_and_nothing_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(tmp_path / "store", create=True)
    assert {path.name for path in store.root.iterdir()} == {"format.json", "rewards", "tmp", "locks"}
    fails(monkeypatch, fcntl, "flock", errno.ENOLCK)
    Store.open(store.root, create=True)


def test_doctor_tries_all_of_it_on_that_folder(
    store: Store, other_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (store.root / "media").symlink_to(other_disk)

    def doctor(root: Path) -> dict[str, str]:
        result = typer.testing.CliRunner().invoke(app, ["doctor", "--store", str(root)])
        lines = [
            line for line in result.output.splitlines() if f"{root}: " in line or f"{root.parent}: " in line
        ]
        return {line[6:].partition(": ")[2]: line[:4] for line in lines}

    whole = doctor(store.root)
    assert set(whole.values()) == {"ok  "}
    assert {"files are written", "files are written in media", "folders are synced in media"} <= whole.keys()
    assert {"of two writers one wins", "processes lock each other out"} <= whole.keys()
    new = doctor(store.root.parent / "new")
    assert {"of two writers one wins", "processes lock each other out"} <= new.keys()
    assert not (store.root.parent / "new").exists()
    fails(monkeypatch, fcntl, "flock", errno.ENOLCK)
    missing = [line for line, mark in doctor(store.root).items() if mark == "MISS"]
    assert len(missing) == 1
    assert missing[0].startswith("processes lock each other out: ")
    assert "has no locks (No locks available)" in missing[0]


@pytest.mark.parametrize("code", NO_LOCKS)
def test_a_device_whose_lock_cannot_be_had_names_the_folders_variable(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(device_lock.FOLDER, str(tmp_path))
    fails(monkeypatch, fcntl, "flock", code)
    with pytest.raises(ServiceError, match=rf"no locks on that disk .*{device_lock.FOLDER} names another"):
        device_lock.hold("standin-9", "a test", print)


# -- real ones ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tmpfs", "ext4", "vfat", "exfat"])
def test_a_store_lives_on_a_real_one(kind: str, tmp_path: Path, make_score: MakeScore) -> None:
    """As root, where the system can make and mount it; vfat and exfat have no hard links."""
    if os.geteuid() != 0:
        pytest.skip("mounting is for root")
    disk, image = tmp_path / "disk", tmp_path / "image"
    disk.mkdir()
    mount = ["mount", "-t", kind, *(["none"] if kind == "tmpfs" else ["-o", "loop", str(image)]), str(disk)]
    if kind != "tmpfs":
        make = shutil.which(f"mkfs.{kind}")
        if make is None:
            pytest.skip(f"no mkfs.{kind} here")
        with open(image, "wb") as file:
            file.truncate(64 << 20)
        subprocess.run([make, str(image)], check=True, capture_output=True)
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip(f"this kernel mounts no {kind}")
    try:
        live(disk / "store", make_score)
        (disk / "media").mkdir()
        (tmp_path / "store").mkdir()
        (tmp_path / "store" / "media").symlink_to(disk / "media")
        live(tmp_path / "store", make_score)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        trials._working.clear()
        refused(disk / "store", "Read-only file system; make the store writable")
        with pytest.raises(StoreError, match="Read-only file system"):
            Store.open(tmp_path / "store", create=True)
        assert Store.open(disk / "store").manifests() == []
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
