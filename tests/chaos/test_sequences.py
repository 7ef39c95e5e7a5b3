"""Any sequence of commands, faults in them, other recipes, collections, champions and power cuts, against a model.

What must hold: whatever a command that ended well has said stays so; nothing half done can be seen, ever.
"""

from __future__ import annotations

import logging
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from data import champion
from data.errors import VidloopError
from data.store import Store, gc
from tasks.units import Runner
from tests.chaos.crash_states import Record
from tests.chaos.file_jobs import Scored
from tests.chaos.file_layer import Fault, FileLayer, PretendKilled

KINDS = [
    "pretend killed",
    "killed at Ctrl-C",
    "foreign error",
    "EIO",
    "ENOSPC",
    "short write, ENOSPC",
    "EROFS",
]
# None: undisturbed. Places behind the last operation disturb nothing either.
FAULTS = st.none() | st.tuples(st.sampled_from(KINDS), st.integers(0, 60))


class Sequences(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.number = 0
        self.done: set[int] = set()  # units of commands that ended well
        self.champions: set[str | None] = {
            None
        }  # one of them is; more than one after a promotion that failed
        logging.disable(logging.CRITICAL)
        self.at(lambda root: root.mkdir())
        assert self.does(lambda: Store.open(self.root, create=True), None)

    def teardown(self) -> None:
        logging.disable(logging.NOTSET)
        self.folder.cleanup()

    def at(self, make: Callable[[Path], object]) -> None:
        """Go on in another folder; what is in it is safe."""
        self.number += 1
        self.root = Path(self.folder.name) / str(self.number)
        make(self.root)
        self.record = Record().begin(self.root)

    def does(self, command: Callable[[], object], fault: tuple[str, int] | None) -> bool:
        """Do it, with a fault; whether it ended well."""
        layer = FileLayer(self.root, None if fault is None else Fault(*fault), keep=True)
        try:
            with layer():
                command()
            return True
        except (VidloopError, PretendKilled, KeyboardInterrupt, RuntimeError):
            assert layer.fault is not None
            assert layer.fault.met
            return False
        finally:
            Record.of(self.root, layer.operations, self.record)

    @rule(recipe=st.lists(st.integers(0, 5), min_size=1, max_size=3, unique=True), fault=FAULTS)
    def play(self, recipe: list[int], fault: tuple[str, int] | None) -> None:
        units = [Scored(self.root, number) for number in recipe]
        if self.does(lambda: Runner()(Store.open(self.root), "score", units), fault):
            self.done |= set(recipe)

    @rule(policy=st.sampled_from("xyz"), fault=FAULTS)
    def promote(self, policy: str, fault: tuple[str, int] | None) -> None:
        well = self.does(lambda: champion.promote(Store.open(self.root), policy, "a round"), fault)
        self.champions = {policy} if well else self.champions | {policy}

    @rule(fault=FAULTS)
    def collect(self, fault: tuple[str, int] | None) -> None:
        if self.does(lambda: gc.collect(Store.open(self.root), delete=True, min_age_s=0), fault):
            assert gc.collect(Store.open(self.root), min_age_s=0).files == ()

    @rule(lot=st.integers(0, 2**32))
    def power_cut(self, lot: int) -> None:
        state = self.record.by_lot(len(self.record.steps), random.Random(lot))
        self.at(state.write)

    @invariant()
    def nothing_said_is_lost_and_nothing_half_done_is_seen(self) -> None:
        store = Store.open(self.root)
        for manifest in store.manifests():
            assert store.verify(manifest.key) is None
            assert len(store.read(manifest.key, "scores")) == 5
        for number in self.done:
            assert store.verify(Scored(self.root, number).key) is None, number
        now = champion.read(store)
        held = None if now is None else now.policy_id
        assert held in self.champions


Sequences.TestCase.settings = settings(
    max_examples=20, stateful_step_count=12, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestSequences = Sequences.TestCase
