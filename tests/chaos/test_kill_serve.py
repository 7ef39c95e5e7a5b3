"""kill -9 of each process of `vidloop serve` in the middle of a round: the state is right in time, the device is
guarded, the next run finishes from the store, and no slot or lock is left.

One server for all of it: what one test leaves would fail the next.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from data.processes import descendants
from tests.served import ENDED, Served, alive, manifests, parts_are_whole, serving, wait_for
from tests.tiny_round import committed, play

pytestmark = pytest.mark.slow

# Promised times after a kill (docs/prefect.md); the time an ended process takes to start again comes on top.
FLOW_S, BOTH_S = 15.0, 150.0
# Enough shards to be in their middle; an orphan needs more, for it must outlive the start of another run.
SOME, MANY = 60, 400


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("kill"), tiny_model) as one:
        yield one


def begun(served: Served, seed: int, clips: int = SOME) -> tuple[str, int]:
    """A run in the middle of its first stage, and its process."""
    before = manifests(served.tiny.store)
    run = served.run("generate", seed=seed, generate={"clips_per_prompt": clips})
    pid = served.flow_process(run)
    wait_for("shard", lambda: manifests(served.tiny.store) > before)
    assert served.state(run) == "RUNNING"
    return run, pid


def finishes(served: Served, seed: int, clips: int = SOME) -> None:
    """The same form again: it gets a slot and the device, computes the rest, and nothing twice."""
    held = manifests(served.tiny.store)
    parts_are_whole(served.tiny.store)
    run = served.run("generate", seed=seed, generate={"clips_per_prompt": clips})
    assert served.until(run, *ENDED)["state_type"] == "COMPLETED", served.log(run)
    (done,) = wait_for(
        "last line of the log",
        lambda: [line for line in served.log(run) if line.strip().startswith("done in")],
    )
    cached = int(done.split(" cached")[0].rsplit(" ", 1)[1])
    computed = int(done.split(" computed")[0].rsplit(" ", 1)[1])
    assert cached >= 1
    assert computed <= manifests(served.tiny.store) - held
    parts_are_whole(served.tiny.store)
    wait_for("free device", lambda: served.free("cpu"), 30)


def worker(served: Served) -> int:
    return served.pid("prefect", "worker start")


def test_the_flow_process(served: Served) -> None:
    run, pid = begun(served, 1)
    os.kill(pid, signal.SIGKILL)
    assert served.until(run, *ENDED, limit_s=FLOW_S)["state_type"] == "CRASHED"
    finishes(served, 1)


def test_the_worker_and_its_flow(served: Served) -> None:
    run, pid = begun(served, 2)
    killed = worker(served)
    for one in (killed, pid):
        os.kill(one, signal.SIGKILL)
    found = served.until(run, *ENDED, limit_s=BOTH_S)
    assert found["state_type"] == "CRASHED"
    assert "no heartbeat for 90 s" in found["state"]["message"]
    assert worker(served) != killed
    finishes(served, 2)


def test_the_worker_alone(served: Served) -> None:
    """The orphan finishes and says so, and nobody else computes on its device until it has ended."""
    run, pid = begun(served, 3, MANY)
    killed = worker(served)
    os.kill(killed, signal.SIGKILL)
    # The pool has one slot and the orphan keeps it: give the second run one of its own, so that the lock decides.
    served.set_slots(2)
    try:
        second = served.run("generate", seed=4, generate={"clips_per_prompt": 2})
        other = served.flow_process(second)
        (said,) = wait_for(
            "line of the one that waits",
            lambda: [line for line in served.log(second) if line.startswith("waiting for device cpu")][:1],
        )
        assert f"process {pid} (generate of round" in said
        os.kill(pid, signal.SIGSTOP)  # as long as it lives, nobody else computes
        time.sleep(1)
        before = manifests(served.tiny.store)
        time.sleep(5)
        assert manifests(served.tiny.store) == before
        assert Path(f"/proc/{other}").exists()
        os.kill(pid, signal.SIGCONT)
        assert served.until(run, *ENDED)["state_type"] == "COMPLETED", served.log(run)
        assert served.until(second, *ENDED)["state_type"] == "COMPLETED", served.log(second)
    finally:
        served.set_slots(1)
    assert worker(served) != killed
    assert served.about(run)["end_time"] < served.about(second)["end_time"]
    # What it said after the worker's death is where the worker would have written it.
    told = served.config.worker_log("cpu").read_text(errors="replace")
    # Lines have the name that a run has when it begins: its round's id comes later.
    name = served.about(run)["name"].split(", round")[0]
    assert f"Flow run '{name}' - Finished in state Completed" in told
    finishes(served, 3, MANY)


def test_the_server(served: Served) -> None:
    run, _ = begun(served, 5)
    killed = served.pid("flows.serving.server")
    os.kill(killed, signal.SIGKILL)
    wait_for("word of it", lambda: "the server ended (signal SIGKILL)" in served.said.read_text())
    assert _answers(served)
    assert served.pid("flows.serving.server") != killed
    # Either the run went on, or its record is closed in the promised time.
    served.until(run, *ENDED, limit_s=BOTH_S)
    finishes(served, 5)


def test_the_server_and_the_flow(served: Served) -> None:
    """A server that was away when the run died still closes its record."""
    run, pid = begun(served, 6)
    for one in (served.pid("flows.serving.server"), worker(served), pid):
        os.kill(one, signal.SIGKILL)
    assert _answers(served)
    assert served.until(run, *ENDED, limit_s=BOTH_S)["state_type"] == "CRASHED"
    finishes(served, 6)


def test_a_whole_round_after_all_that_is_what_it_would_have_been(served: Served, tmp_path: Path) -> None:
    run = served.run("round", seed=7)
    assert served.until(run, *ENDED)["state_type"] == "COMPLETED", served.log(run)
    plain = served.tiny.at(tmp_path / "plain")
    play(plain, "seed=7")
    held = committed(served.tiny.store)
    assert committed(plain.store).items() <= held.items()


@pytest.mark.parametrize("victim", ["serve", "supervisor"])
def test_nothing_is_left_when_serve_or_its_supervisor_is_killed(
    victim: str, tmp_path: Path, tiny_model: Path
) -> None:
    with serving(tmp_path, tiny_model) as one:
        _, pid = begun(one, 1)
        below = descendants(one.process.pid)
        assert pid in below
        killed = one.process.pid if victim == "serve" else one.pid("flows.serving.supervisor")
        os.kill(killed, signal.SIGKILL)
        one.process.wait(120)
        wait_for("end of all", lambda: not alive(below), 120)
        # What was begun after that list was made ends a moment later.
        wait_for("free device", lambda: one.free("cpu"), 30)


def _answers(served: Served) -> bool:
    def look() -> bool:
        try:
            return bool(served.ask("/admin/version"))
        except OSError:
            return False

    return wait_for("answer of the server", look, 300)
