from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.error import HTTPError

import pytest

from data.errors import StageFailed, StoreError, UserError
from data.store import Store
from tasks import units
from tasks.units import (
    RETRIES,
    Listener,
    Runner,
    Unit,
    are_whole,
    is_transient,
    report_steps,
    run_with_retries,
    stage_key,
)


@dataclass
class Job(Unit):
    """A unit that commits one empty manifest, after raising what it is told to."""

    store: Store
    number: int
    raises: list[BaseException] = field(default_factory=list)
    runs: int = 0
    task: ClassVar[str] = "try-job"

    @property
    def label(self) -> str:
        return f"job {self.number}"

    @property
    def questions(self) -> tuple[dict[str, Any], ...]:
        return ({"stage": "try", "version": 1, "number": self.number},)

    def run(self) -> None:
        self.runs += 1
        if self.raises:
            raise self.raises.pop(0)
        self.store.commit("try", self.questions[0], {"prompts": []})


class Heard(Listener):
    """Notes what a runner says."""

    def __init__(self) -> None:
        self.units: list[tuple[str, bool]] = []
        self.told: list[tuple[int, int]] = []

    def on_unit_end(self, stage: str, unit: Unit, cached: bool, seconds: float) -> None:
        self.units.append((unit.label, cached))

    def on_steps(self, stage: str, unit: Unit, done: int, total: int) -> None:
        self.told.append((done, total))


@pytest.fixture(params=[1, 3])
def workers(request: pytest.FixtureRequest) -> int:
    return request.param


def test_everything_is_computed_once(store: Store, workers: int) -> None:
    jobs = [Job(store, number) for number in range(5)]
    heard = Heard()
    first = Runner(workers, heard)(store, "try", jobs)
    assert (first.shards, first.cached_shards, first.failed) == (5, 0, 0)
    second = Runner(workers, heard)(store, "try", jobs)
    assert (second.shards, second.cached_shards, second.key) == (5, 5, first.key)
    assert [job.runs for job in jobs] == [1] * 5
    assert sorted(heard.units) == sorted((f"job {n}", cached) for n in range(5) for cached in (False, True))
    assert first.key == stage_key(jobs) != stage_key(jobs[:4])


def test_what_is_whole_is_recalled_at_once_and_the_rest_is_computed(store: Store, workers: int) -> None:
    jobs = [Job(store, number) for number in range(6)]
    recalled: list[list[int]] = []
    computed: list[int] = []

    def compute(unit: Unit) -> None:
        assert isinstance(unit, Job)
        computed.append(unit.number)
        unit.run()

    def recall(units: Sequence[Unit]) -> None:
        recalled.append([unit.number for unit in units if isinstance(unit, Job)])

    heard = Heard()
    runner = Runner(workers, heard, compute, recall)
    runner(store, "try", jobs[1:4])
    assert (recalled, sorted(computed)) == ([], [1, 2, 3])
    computed.clear()
    heard.units.clear()
    result = runner(store, "try", jobs)
    assert (recalled, sorted(computed)) == ([[1, 2, 3]], [0, 4, 5])
    assert (result.shards, result.cached_shards) == (6, 3)
    assert heard.units[:3] == [("job 1", True), ("job 2", True), ("job 3", True)]
    assert sorted(heard.units[3:]) == [("job 0", False), ("job 4", False), ("job 5", False)]


def test_a_failure_keeps_what_succeeded_and_names_the_unit(store: Store, workers: int) -> None:
    jobs = [Job(store, number, [ValueError("odd")] if number == 1 else []) for number in range(4)]
    with pytest.raises(StageFailed, match=r"1 of 4 units failed\. First: job 1: ValueError: odd") as caught:
        Runner(workers)(store, "try", jobs)
    assert caught.value.stage == "try"
    assert are_whole(store, jobs) == [True, False, True, True]
    assert Runner(workers)(store, "try", jobs).cached_shards == 3


def test_a_stage_that_keeps_failing_is_given_up(store: Store) -> None:
    jobs = [Job(store, number, [ValueError("dead")]) for number in range(9)]
    with pytest.raises(StageFailed, match="3 of 9"):
        Runner()(store, "try", jobs)
    assert [job.runs for job in jobs] == [1, 1, 1, 0, 0, 0, 0, 0, 0]


def test_bad_input_ends_the_stage_as_itself(store: Store) -> None:
    jobs = [Job(store, 0, [StoreError("disk full")]), Job(store, 1)]
    with pytest.raises(StoreError, match="disk full"):
        Runner()(store, "try", jobs)
    assert jobs[1].runs == 0


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (HTTPError("u", 429, "slow down", None, None), True),  # type: ignore[arg-type]
        (HTTPError("u", 503, "away", None, None), True),  # type: ignore[arg-type]
        (HTTPError("u", 400, "wrong", None, None), False),  # type: ignore[arg-type]
        (ValueError("wrong"), False),
        (AssertionError(), False),
        (MemoryError(), False),
        (UserError("wrong"), False),
        (PermissionError(), False),
    ],
)
def test_only_what_may_pass_is_tried_again(store: Store, error: Exception, passes: bool) -> None:
    assert is_transient(error) is passes
    job, slept = Job(store, 0, [error]), []
    if passes:
        run_with_retries(job, slept.append)
        assert (job.runs, len(slept)) == (2, 1)
    else:
        with pytest.raises(type(error)):
            run_with_retries(job, slept.append)
        assert (job.runs, slept) == (1, [])


def test_patience_ends(store: Store) -> None:
    job, slept = Job(store, 0, [ConnectionResetError() for _ in range(9)]), []
    with pytest.raises(ConnectionResetError):
        run_with_retries(job, slept.append)
    assert job.runs == RETRIES + 1
    assert slept[0] < slept[2]


def test_interruption_stops_at_once(store: Store, workers: int) -> None:
    jobs = [Job(store, number, [KeyboardInterrupt()] if number == 0 else []) for number in range(20)]
    with pytest.raises(KeyboardInterrupt):
        Runner(workers)(store, "try", jobs)
    assert sum(job.runs for job in jobs) < 20


def test_what_fails_after_an_interruption_is_not_tried_again(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """A signal to the whole group ends the processes that compute too: that is no failure of theirs."""
    meeting = threading.Barrier(2, timeout=30)

    @dataclass
    class Meets(Job):
        def run(self) -> None:
            meeting.wait()
            super().run()

    def until_interrupted(_: float) -> None:
        deadline = time.monotonic() + 30
        while not units._given_up.get()() and time.monotonic() < deadline:
            time.sleep(0.01)

    jobs = [Meets(store, 0, [KeyboardInterrupt()]), Meets(store, 1, [ConnectionResetError()])]
    runner = Runner(2, execute=lambda unit: run_with_retries(unit, until_interrupted))
    with pytest.raises(KeyboardInterrupt):
        runner(store, "try", jobs)
    assert [job.runs for job in jobs] == [1, 1]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_workers_work_at_the_same_time(store: Store) -> None:
    meeting = threading.Barrier(2, timeout=30)

    @dataclass
    class Meets(Job):
        def run(self) -> None:
            meeting.wait()
            super().run()

    Runner(2)(store, "try", [Meets(store, 0), Meets(store, 1)])


def test_steps_reach_the_listener_of_their_own_unit(store: Store, workers: int) -> None:
    @dataclass
    class Long(Job):
        def run(self) -> None:
            report_steps(self.number, 9)
            super().run()

    heard = Heard()
    Runner(workers, heard)(store, "try", [Long(store, 1), Long(store, 2)])
    assert sorted(heard.told) == [(1, 9), (2, 9)]
    report_steps(3, 9)  # nobody listens: nothing happens


def damage_manifest(store: Store, manifest: Any) -> None:
    next(store.root.glob(f"manifests/*/{manifest.key}.json")).write_text("{}")


def lose_part(store: Store, manifest: Any) -> None:
    store.path(manifest.parts[0].path).unlink()


def cut_part(store: Store, manifest: Any) -> None:
    path = store.path(manifest.parts[0].path)
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [cut_part, damage_manifest, lose_part])
def test_what_does_not_verify_is_dropped_and_said(
    store: Store, damage: Callable[[Store, Any], None], caplog: pytest.LogCaptureFixture
) -> None:
    job = Job(store, 0)
    assert not all(are_whole(store, [job]))
    assert not caplog.records
    job.run()
    assert all(are_whole(store, [job]))
    damage(store, store.manifest(job.keys[0]))
    assert not all(are_whole(store, [job]))
    assert "job 0" in caplog.text
    assert "computed again" in caplog.text
    assert store.manifest(job.keys[0]) is None
