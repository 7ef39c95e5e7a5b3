"""The store against a dictionary: any sequence of commits, crashes, damage, discards and collections."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from data.records import Score
from data.store import Store, failpoints, gc
from tests.s3_server import S3

CRASHES = ["store.mid_write:1", "store.mid_write:2", "store.mid_write:3", "store.after_media", "store.after_part",
           "store.before_manifest", "store.after_manifest"]  # fmt: skip


def rows_of(number):
    """The answer to question `number`: a function of it, as a stage's is. Neighbours share their media."""
    return [Score(f"c{number}-{i}", "clip", "v1", i / 3, "ok", None, "{}") for i in range(number % 3)]


class StoreMachine(RuleBasedStateMachine):
    keys = Bundle("keys")

    def place(self):
        """The name of a new store."""
        return str(Path(self.folder.name) / "store")

    @initialize()
    def make(self):
        self.folder = tempfile.TemporaryDirectory()
        self.store = Store.open(self.place(), create=True)
        self.model = {}
        self.damaged = set()

    def teardown(self):
        os.environ.pop("VIDLOOP_FAILPOINT", None)
        os.environ.pop("VIDLOOP_FAILPOINT_ACTION", None)
        self.folder.cleanup()

    def do(self, number):
        media = self.store.write_media(b"pixels of %d" % (number // 2), "mp4")
        question = {"stage": "score", "version": 1, "number": number}
        return self.store.commit("score", question, {"scores": rows_of(number)}, [media])

    @rule(target=keys, number=st.integers(0, 7))
    def commit(self, number):
        manifest = self.do(number)
        self.model[manifest.key] = number
        # Writing a unit again makes its files whole: those it shares as well.
        self.damaged = {path for path in self.damaged if path not in {item.path for item in manifest.files}}
        return manifest.key

    @rule(number=st.integers(0, 7), point=st.sampled_from(CRASHES))
    def crash(self, number, point):
        failpoints.reset()
        os.environ |= {"VIDLOOP_FAILPOINT": point, "VIDLOOP_FAILPOINT_ACTION": "raise"}
        before = {manifest.key for manifest in self.store.manifests()}
        try:
            self.do(number)
        except RuntimeError:
            pass
        finally:
            del os.environ["VIDLOOP_FAILPOINT"]
        new = {manifest.key for manifest in self.store.manifests()} - before
        assert len(new) <= 1
        for key in new:
            self.model[key] = number
        # What a crash wrote before it came is whole too.
        self.damaged = {path for path in self.damaged if not self.whole(path)}

    def whole(self, path):
        items = [item for manifest in self.store.manifests() for item in manifest.files if item.path == path]
        return not items or self.store.fault(items[0]) is None

    @rule(key=keys, which=st.integers(0, 5), how=st.sampled_from(["flip", "cut", "remove"]))
    def damage(self, key, which, how):
        manifest = self.store.manifest(key)
        if manifest is None:
            return
        item = manifest.files[which % len(manifest.files)]
        backend = self.store.backend
        if item.path in self.damaged or (how == "flip" and not backend.rots):
            return
        if how == "remove":
            backend.remove(item.path)
        elif how == "cut":
            backend.put(item.path, backend.read(item.path)[: item.bytes // 2])
        else:
            content = bytearray(backend.read(item.path))
            content[len(content) // 2] ^= 4
            backend.put(item.path, bytes(content))
        self.damaged.add(item.path)

    @rule(key=keys)
    def discard(self, key):
        manifest = self.store.manifest(key)
        self.store.discard(key)
        self.model.pop(key, None)
        if manifest:
            self.damaged -= {part.path for part in manifest.parts}
            still = {item.path for kept in self.store.manifests() for item in kept.files}
            self.damaged &= still

    @rule()
    def reopen(self):
        self.store = Store.open(self.store.url)

    @rule(delete=st.booleans())
    def collect(self, delete):
        named = {item.path for manifest in self.store.manifests() for item in manifest.files}
        report = gc.collect(self.store, delete=delete, min_age_s=-60)
        assert not named & set(report.files)
        if delete:
            assert gc.collect(self.store, min_age_s=-60).files == ()

    @invariant()
    def the_store_holds_what_the_model_holds(self):
        manifests = self.store.manifests()
        assert {manifest.key: manifest.question["number"] for manifest in manifests} == self.model
        for manifest in manifests:
            harmed = {item.path for item in manifest.files} & self.damaged
            assert (self.store.verify(manifest.key) is not None) == bool(harmed)
            if not harmed:
                assert self.store.read(manifest.key, "scores") == rows_of(self.model[manifest.key])


StoreMachine.TestCase.settings = settings(
    max_examples=20, stateful_step_count=15, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestStore = StoreMachine.TestCase


class OnObjects(StoreMachine):
    def place(self):
        return S3(0).url()


@pytest.mark.slow
@pytest.mark.usefixtures("s3")
class TestStoreOnObjects(OnObjects.TestCase):
    settings = settings(
        max_examples=10, stateful_step_count=10, deadline=None, suppress_health_check=list(HealthCheck)
    )
