"""The store is killed, or its disk fails, at every durable step; then the same work is done again."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import data
from data.errors import StoreError
from data.store import Store, failpoints, gc
from data.store.bucket import is_url
from tests.data.store.places import files, in_a_folder

CHECKOUT = Path(data.__file__).parents[1]

# Forks for each line of its input, so that every worker that is killed is a process of its own and none imports
# anew. The work: one unit with every kind of write (two media, two tables, a manifest) and the champion.
WORKERS = """
import json, os, sys
from data import champion
from data.records import Prompt, Score
from data.store import Store, leases

leases.TERM_S, leases._BEAT_S = 1.5, 0.2  # of object storage: what a killed one held is free soon

def work(place):
    store = Store.open(place, create=True)
    media = [store.write_media(b"video" * 1000, "mp4"), store.write_media(b"latent" * 1000, "safetensors")]
    prompts = [Prompt(f"p{i}", f"text {i}", "falling down", "", "train", "t") for i in range(9)]
    scores = [Score(f"c{i}", "clip", "v1", i / 7, "ok", None, "{}") for i in range(9)]
    question = {"stage": "score", "version": 1}
    store.commit("score", question, {"scores": scores, "prompts": prompts}, media, info={"failed": 0})
    champion.promote(store, "y1", "r1")

for line in sys.stdin:
    place, environment = json.loads(line)
    child = os.fork()
    if not child:
        os.environ |= environment
        work(place)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
# How often each point is passed; store.mid_write also by format.json, champion.json and its copy, and two files
# of rewards/. On object storage by the trials of the service and by the champion's lock too.
POINTS = {
    "store.after_media": 2,
    "store.after_part": 2,
    "store.before_manifest": 1,
    "store.after_manifest": 1,
}
PASSES = {
    "folder": POINTS | {"store.mid_write": 10},
    "objects": POINTS | {"store.mid_write": 17},
}
STEPS = [
    pytest.param(kind, f"{name}:{n}", marks=[pytest.mark.slow] if kind == "objects" else [])
    for kind, points in PASSES.items()
    for name, passes in points.items()
    for n in range(1, passes + 1)
]


@pytest.fixture(scope="module")
def workers():
    server = subprocess.Popen(
        [sys.executable, "-c", WORKERS],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield server
    server.stdin.close()
    server.wait()
    server.stdout.close()


@pytest.fixture
def work(workers):
    """Do the work in a store, killed at a step; returns the worker's exit code, negative for a signal."""

    def run(place, step=""):
        told = dict(os.environ) | {"VIDLOOP_FAILPOINT": step}
        workers.stdin.write(json.dumps([place, told]) + "\n")
        workers.stdin.flush()
        return int(workers.stdout.readline())

    return run


def everything(place):
    kept = ("manifests", "parts", "media", "champion.json", "champion.copy.json", "format.json")
    return {name: content for name, content in files(place).items() if name.split("/")[0] in kept}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, workers):
    """What the work leaves in a folder where nothing goes wrong, which is what it leaves everywhere."""
    place = str(tmp_path_factory.mktemp("undisturbed") / "store")
    workers.stdin.write(json.dumps([place, {}]) + "\n")
    workers.stdin.flush()
    assert workers.stdout.readline() == "0\n"
    return everything(place)


def assert_nothing_half_done_is_visible(place):
    if "format.json" not in files(place):
        return
    store = Store.open(place)
    for manifest in store.manifests():
        assert store.verify(manifest.key) is None
        assert len(store.read(manifest.key, "scores")) == 9


@pytest.mark.parametrize(("new_place", "step"), STEPS, indirect=["new_place"])
def test_killed_at_any_step_the_same_work_gives_the_same_bytes(place, work, undisturbed, step):
    assert work(place, step) == -signal.SIGKILL
    assert_nothing_half_done_is_visible(place)
    assert work(place) == 0
    assert everything(place) == undisturbed
    store = Store.open(place)
    left = len(store.find("tmp/*"))
    if not is_url(place):
        assert left == step.startswith("store.mid_write")
    young = gc.collect(store, delete=True)
    assert (young.files, young.young) == ((), left)  # something may be writing it
    assert len(gc.collect(store, delete=True, min_age_s=-60).files) == left
    assert store.find("tmp/*") == []
    assert everything(place) == undisturbed


def test_the_list_of_steps_is_complete(new_place, work):
    kind = "objects" if is_url(new_place("store")) else "folder"
    for name, passes in PASSES[kind].items():
        assert work(new_place(name), f"{name}:{passes + 1}") == 0, name


@pytest.fixture
def fail(monkeypatch):
    failpoints.reset()

    def at(step, action):
        monkeypatch.setenv("VIDLOOP_FAILPOINT", step)
        monkeypatch.setenv("VIDLOOP_FAILPOINT_ACTION", action)

    yield at
    failpoints.reset()


@in_a_folder
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


@in_a_folder
def test_a_disk_that_turned_read_only_is_explained(store, fail):
    fail("store.mid_write", "erofs")
    with pytest.raises(
        StoreError, match=r"cannot write .*media.*Read-only file system; make the store writable"
    ):
        store.write_media(b"pixels", "mp4")


@in_a_folder
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
