"""The store is killed, or its disk fails, at every durable step; then the same work is done again."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import data
from data.errors import StoreError
from data.store import Store, failpoints, gc

CHECKOUT = Path(data.__file__).parents[1]

# Forks for each line of its input, so that every worker that is killed is a process of its own and none imports
# anew. The work: one unit with every kind of write (two media, two tables, a manifest) and the champion.
WORKERS = """
import os, sys
from data import champion
from data.records import Prompt, Score
from data.store import Store

def work(root):
    store = Store.open(root, create=True)
    media = [store.write_media(b"video" * 1000, "mp4"), store.write_media(b"latent" * 1000, "safetensors")]
    prompts = [Prompt(f"p{i}", f"text {i}", "falling down", "", "train", "t") for i in range(9)]
    scores = [Score(f"c{i}", "clip", "v1", i / 7, "ok", None, "{}") for i in range(9)]
    question = {"stage": "score", "version": 1}
    store.commit("score", question, {"scores": scores, "prompts": prompts}, media, info={"failed": 0})
    champion.promote(store, "y1", "r1")

for line in sys.stdin:
    root, step, action = line.rstrip("\\n").split("|")
    child = os.fork()
    if not child:
        os.environ |= {"VIDLOOP_FAILPOINT": step, "VIDLOOP_FAILPOINT_ACTION": action}
        work(root)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
# How often each point is passed; store.mid_write also by format.json, champion.json and its copy, and two files
# of rewards/.
POINTS = {
    "store.mid_write": 10, "store.after_media": 2, "store.after_part": 2, "store.before_manifest": 1,
    "store.after_manifest": 1,
}  # fmt: skip
STEPS = [f"{name}:{n}" for name, passes in POINTS.items() for n in range(1, passes + 1)]


@pytest.fixture(scope="module")
def work():
    """Do the work in a store, failing as told; returns the worker's exit code, negative for a signal."""
    server = subprocess.Popen(
        [sys.executable, "-c", WORKERS],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def run(root, step="", action=""):
        server.stdin.write(f"{root}|{step}|{action}\n")
        server.stdin.flush()
        return int(server.stdout.readline())

    yield run
    server.stdin.close()
    server.wait()
    server.stdout.close()


def everything(root):
    kept = ("manifests", "parts", "media", "champion.json", "champion.copy.json", "format.json")
    return {
        p.relative_to(root).as_posix(): p.read_bytes()
        for p in sorted(root.rglob("*"))
        if p.is_file() and p.relative_to(root).parts[0] in kept
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, work):
    root = tmp_path_factory.mktemp("undisturbed") / "store"
    assert work(root) == 0
    return everything(root)


def assert_nothing_half_done_is_visible(root):
    if not (root / "format.json").exists():
        return
    store = Store.open(root)
    for manifest in store.manifests():
        assert store.verify(manifest.key) is None
        assert len(store.read(manifest.key, "scores")) == 9


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_the_same_work_gives_the_same_bytes(tmp_path, work, undisturbed, step):
    root = tmp_path / "store"
    assert work(root, step, "kill") == -signal.SIGKILL
    assert_nothing_half_done_is_visible(root)
    assert work(root) == 0
    assert everything(root) == undisturbed
    store = Store.open(root)
    left = len(list(root.glob("tmp/*")))
    assert left == step.startswith("store.mid_write")
    young = gc.collect(store, delete=True)
    assert (young.files, young.young) == ((), left)  # something may be writing it
    assert len(gc.collect(store, delete=True, min_age_s=0).files) == left
    assert not list(root.glob("tmp/*"))


def test_the_list_of_steps_is_complete(tmp_path, work):
    for name, passes in POINTS.items():
        assert work(tmp_path / name, f"{name}:{passes + 1}", "kill") == 0, name


@pytest.fixture
def fail(monkeypatch):
    failpoints.reset()

    def at(step, action):
        monkeypatch.setenv("VIDLOOP_FAILPOINT", step)
        monkeypatch.setenv("VIDLOOP_FAILPOINT_ACTION", action)

    yield at
    failpoints.reset()


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_full_disk_says_what_to_do_and_loses_nothing(store, make_score, fail, monkeypatch, step):
    before = store.commit("score", {"stage": "score", "version": 0}, {"scores": [make_score("c1", 1.0)]})

    def commit():
        media = store.write_media(b"pixels", "mp4")
        return store.commit(
            "score", {"stage": "score", "version": 1}, {"scores": [make_score("c2", 1.0)]}, [media]
        )

    failpoints.reset()
    fail(f"store.mid_write:{step}", "enospc")
    with pytest.raises(
        StoreError,
        match=r"disk full at .*; free space and run the same command again; nothing committed is lost",
    ):
        commit()
    assert not list(store.root.glob("tmp/*")), "the unfinished file still takes space"
    assert store.manifests() == [before]
    monkeypatch.delenv("VIDLOOP_FAILPOINT")
    after = commit()
    assert sorted([before.key, after.key]) == [manifest.key for manifest in store.manifests()]
    assert store.verify(before.key) is None
    assert store.verify(after.key) is None


def test_a_disk_that_turned_read_only_is_explained(store, fail):
    fail("store.mid_write", "erofs")
    with pytest.raises(
        StoreError, match=r"cannot write .*media.*Read-only file system; make the store writable"
    ):
        store.write_media(b"pixels", "mp4")


def test_a_crash_between_manifest_and_parts_of_a_discard_leaves_no_manifest_without_files(
    store, make_score, monkeypatch
):
    manifest = store.commit("score", {"stage": "score", "version": 1}, {"scores": [make_score("c1", 1.0)]})
    real = os.fsync

    def fail_after_unlink(descriptor):
        real(descriptor)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", fail_after_unlink)
    with pytest.raises(KeyboardInterrupt):
        store.discard(manifest.key)
    monkeypatch.undo()
    assert store.manifests() == []
    assert store.path(manifest.parts[0].path).exists()
    assert gc.collect(store, delete=True, min_age_s=0).files == (manifest.parts[0].path,)


def test_failpoints_fire_at_the_pass_they_name_and_cost_nothing_when_unset(fail, monkeypatch):
    fail("here:2", "raise")
    failpoints.failpoint("here")
    failpoints.failpoint("elsewhere")
    with pytest.raises(RuntimeError, match="failpoint here:2"):
        failpoints.failpoint("here")
    failpoints.failpoint("here")
    monkeypatch.delenv("VIDLOOP_FAILPOINT")
    failpoints.reset()
    failpoints.failpoint("here")
