"""What the bars say while units go by, and that nothing of it can fail a round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from prefect.artifacts import Artifact

from data.store import Store
from flows import temporary_server, terminal
from flows.artifacts import progress, server
from flows.artifacts.progress import Bar, Bars
from tasks.units import Runner, Silent, report_steps


@dataclass(frozen=True)
class Number:
    """A unit that commits its number, in as many steps as it says."""

    store: Store
    number: int
    steps: int = 0

    task = "number"

    @property
    def label(self) -> str:
        return f"number {self.number}"

    @property
    def questions(self) -> tuple[dict[str, Any], ...]:
        return ({"stage": "score", "number": self.number},)

    @property
    def keys(self) -> tuple[str, ...]:
        from data.keys import digest

        return tuple(digest(question) for question in self.questions)

    def run(self) -> None:
        for step in range(self.steps):
            report_steps(step + 1, self.steps)
        self.store.commit("score", self.questions[0], {"scores": []})


class Heard(Bars):
    """Bars that remember everything they said."""

    def __init__(self, stage: str, round_bar: Bar) -> None:
        super().__init__(stage, Silent(), round_bar)
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
    assert [bar.key for bar in heard.bars] == ["progress-round", "progress-score"]
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
    assert [(bar.key, bar.percent) for bar in heard.bars[1:]] == [("progress-evaluate", 100.0)] * 2


def test_outside_of_a_flow_run_the_listener_is_the_one_that_was_given() -> None:
    listener = Silent()
    with progress.of_stage("score", "r", listener) as heard, progress.of_round("r"):
        assert heard is listener


def test_a_server_that_fails_is_said_and_fails_nothing() -> None:
    lines: list[str] = []
    before = terminal.current()
    terminal.choose(terminal.Lines(lines.append))

    def fail() -> None:
        raise ConnectionError("nobody\nlistens")

    try:
        server.attempt("the card of the round", fail)
    finally:
        terminal.choose(before)
    assert lines == [
        "    the card of the round cannot be shown in the UI (ConnectionError: nobody listens); the run goes on"
    ]


@pytest.mark.parametrize("name", ["mini", "wan2.1-1.3b", "Mein Rezept (neu)", "動", ""])
def test_keys_are_such_as_prefect_takes(name: str) -> None:
    key = server.key_of("round-report", name)
    assert Artifact(key=key).key == key
    assert key.startswith("round-report")


def test_a_temporary_server_is_known_by_its_address() -> None:
    assert not temporary_server.is_at("http://127.0.0.1:4200/api")
