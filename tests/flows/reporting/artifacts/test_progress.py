"""What the bars say while units go by, and that nothing of it can fail a round."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from prefect.artifacts import Artifact

from data.store import Store
from flows.reporting import console
from flows.reporting.artifacts import progress, server
from flows.reporting.artifacts.progress import Bar, Bars, Sender
from tasks.units import Listener, Runner, Unit, report_steps


@dataclass(frozen=True)
class Number(Unit):
    """A unit that commits its number, in as many steps as it says."""

    store: Store
    number: int
    steps: int = 0

    task: ClassVar[str] = "number"

    @property
    def label(self) -> str:
        return f"number {self.number}"

    @property
    def questions(self) -> tuple[dict[str, Any], ...]:
        return ({"stage": "score", "number": self.number},)

    def run(self) -> None:
        for step in range(self.steps):
            report_steps(step + 1, self.steps)
        self.store.commit("score", self.questions[0], {"scores": []})


class Heard(Bars):
    """Bars that remember everything they said."""

    def __init__(self, stage: str, round_bar: Bar) -> None:
        super().__init__(stage, Listener(), round_bar)
        self.said: list[tuple[int, str]] = []

    def _tell(self, share: float, figures: str, what: str, computed: int = 0) -> None:
        super()._tell(share, figures, what, computed)
        bar = self.bars[-1]
        self.said.append((round(bar.percent), bar.text))


def test_a_bar_counts_units_and_says_which_came_from_the_cache(store: Store) -> None:
    Number(store, 0).run()
    whole = Bar("progress-round")
    heard = Heard("score", whole)
    Runner(listener=heard)(store, "score", [Number(store, n) for n in range(4)])
    assert [percent for percent, _ in heard.said] == [0, 25, 50, 75, 100]
    assert heard.said[0][1] == "0 of 4 units (number)"
    assert heard.said[1][1] == "1 of 4 units (number, 1 from the cache)"
    assert heard.said[2][1].startswith("2 of 4 units, ")
    assert heard.said[2][1].endswith(" s left (number, 1 from the cache)")
    assert heard.said[4][1] == "4 of 4 units (number, 1 from the cache)"
    assert [bar.key for bar in heard.bars] == ["progress-score"]
    assert (whole.percent, whole.text) == (20.0, "score, 2 of 5 stages: " + heard.said[4][1])


def test_a_long_unit_moves_the_bar_by_its_steps(store: Store) -> None:
    heard = Heard("finetune", Bar("progress-round"))
    Runner(listener=heard)(store, "finetune", [Number(store, 7, steps=4)])
    assert [percent for percent, _ in heard.said] == [0, 25, 50, 75, 100, 100]
    assert heard.said[2][1].startswith("2 of 4 steps, ")


def test_every_list_of_a_stage_has_a_bar_of_its_own(store: Store) -> None:
    heard = Heard("evaluate", Bar("progress-round"))
    for numbers in ((1, 2), (3,)):
        Runner(listener=heard)(store, "evaluate", [Number(store, n) for n in numbers])
    assert [(bar.key, bar.percent) for bar in heard.bars] == [("progress-evaluate", 100.0)] * 2


def test_bars_are_sent_at_the_end_of_a_stage_and_of_a_round_and_in_between_now_and_then() -> None:
    sent: list[tuple[str, float]] = []
    told = threading.Semaphore(0)

    class Counted(Bar):
        def send(self) -> None:
            if (self.percent, self.text) != self.sent:
                sent.append((self.key, self.percent))
                self.sent = (self.percent, self.text)
                told.release()

    sender = Sender(every_s=3600)
    one, other = Counted("one"), Counted("other")
    sender.bars += [one, other]
    for percent in range(100):
        one.percent = percent
    assert sent == []  # the work does not wait, and the server hears of its steps only now and then
    sender.now()
    assert told.acquire(timeout=30)
    assert told.acquire(timeout=30)
    assert sent == [("one", 99), ("other", 0.0)]
    one.percent = 100.0
    sender.close()
    assert sent[2:] == [("one", 100.0)]


def test_a_bar_that_cannot_be_sent_is_said_once_and_does_not_keep_the_others_back() -> None:
    lines: list[str] = []
    sent: list[str] = []

    class Lost(Bar):
        def send(self) -> None:
            raise ConnectionError("nobody listens")

    class Sent(Bar):
        def send(self) -> None:
            sent.append(self.key)

    before = console.current()
    console.choose(console.ProgressReporter(lines.append))
    try:
        sender = Sender(every_s=0.01)
        sender.bars += [Lost("progress-score"), Sent("progress-round")]
        while len(sent) < 3:
            time.sleep(0.01)
        sender.close()
    finally:
        console.choose(before)
    assert lines == [
        "    the progress of score cannot be shown in the UI (ConnectionError: nobody listens); the run goes on"
    ]


def test_outside_of_a_flow_run_the_listener_is_the_one_that_was_given() -> None:
    listener = Listener()
    with progress.of_stage("score", "r", listener) as heard, progress.of_round("r"):
        assert heard is listener


def test_a_server_that_fails_is_said_and_fails_nothing() -> None:
    lines: list[str] = []
    before = console.current()
    console.choose(console.ProgressReporter(lines.append))

    def fail() -> None:
        raise ConnectionError("nobody\nlistens")

    try:
        server.attempt("the card of the round", fail)
    finally:
        console.choose(before)
    assert lines == [
        "    the card of the round cannot be shown in the UI (ConnectionError: nobody listens); the run goes on"
    ]


@pytest.mark.parametrize("name", ["mini", "wan2.1-1.3b", "Mein Rezept (neu)", "動", ""])
def test_keys_are_such_as_prefect_takes(name: str) -> None:
    key = server.key_of("round-report", name)
    assert Artifact(key=key).key == key
    assert key.startswith("round-report")
