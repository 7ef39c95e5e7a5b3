"""A night that asks a person: suspended with a form, promoted or kept by the answer, kept without one."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from data import champion
from data.store import Store
from flows.rounds.approval import PICTURE_BYTES
from flows.rounds.notify import NOTIFY_VARIABLE
from tasks.rounds import read_summary
from tests.served import ENDED, Served, serving, wait_for
from tests.tiny_nights import PROMOTES, Webhook, kept_secret, webhook
from tests.tiny_round import Ended

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def told() -> Iterator[Webhook]:
    with webhook() as one:
        yield one


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, calm_model: Path, told: Webhook) -> Iterator[Served]:
    os.environ[NOTIFY_VARIABLE] = told.url
    try:
        with serving(tmp_path_factory.mktemp("approval"), calm_model) as one:
            yield one
    finally:
        del os.environ[NOTIFY_VARIABLE]


def suspended(served: Served, hours: float = 1.0) -> tuple[str, str]:
    """A night from the base, whose candidate the gate lets through, and which asks; its run and its round.

    A candidate of a candidate is not surely sharper still.
    """
    for name in ("champion.json", "champion.copy.json"):
        (served.tiny.store / name).unlink(missing_ok=True)
    run = served.run("nightly", approval=True, approval_hours=hours, overrides=PROMOTES)
    found = served.until(run, *ENDED, "PAUSED")
    assert (found["state_type"], found["state_name"]) == ("PAUSED", "Suspended"), (
        found["state"],
        served.log(run),
    )
    return run, max(path.name for path in (served.tiny.store / "rounds").iterdir())


def form(served: Served, run: str, part: str) -> Any:
    key = served.about(run)["state"]["state_details"]["run_input_keyset"][part]
    # The schema is written as JSON, and the text as a JSON string.
    return served.ask(f"/flow_runs/{run}/input/{key}")


def resume(served: Served, run: str, **said: str) -> dict[str, Any]:
    found: dict[str, Any] = served.ask(f"/flow_runs/{run}/resume", {"run_input": said})
    return found


def ends(served: Served, run: str) -> None:
    found = served.until(run, *ENDED)
    assert found["state_type"] == "COMPLETED", (found["state"], served.log(run))


def committed_when(store: Path) -> dict[str, int]:
    """Every file of committed work, and when it was last written or used."""
    paths = [path for folder in ("manifests", "parts", "media") for path in (store / folder).rglob("*")]
    return {str(path): path.stat().st_mtime_ns for path in paths if path.is_file()}


def test_yes(served: Served, told: Webhook) -> None:
    run, round_id = suspended(served)
    store = Store.open(served.tiny.store)
    assert champion.read(store) is None
    assert read_summary(store, round_id).model_dump()["approval"]["answer"] is None

    # Neither a process, nor the device, nor a slot: somebody else's run starts and ends meanwhile.
    wait_for("end of the process", lambda: not any(run in line for line in environments(served)), 60)
    wait_for("free device", lambda: served.free("cpu"), 60)
    other = served.run("round", dry_run=True)
    ends(served, other)

    description = form(served, run, "description")
    summary = read_summary(store, round_id).model_dump()
    assert "Promoted: sharpness rose from" in description
    assert summary["policy_after"] in description
    pictures = re.findall(r"data:image/(?:png|jpeg);base64,([A-Za-z0-9+/=]+)\)", description)
    assert pictures
    assert sum(map(len, pictures)) <= PICTURE_BYTES
    schema = form(served, run, "schema")
    assert schema["required"] == ["approve", "reason", "who"]
    assert schema["properties"]["approve"]["enum"] == ["yes", "no"]

    for wrong in ({}, {"approve": "yes"}, {"approve": "perhaps", "reason": "r", "who": "w"}, {"approve": "yes", "reason": "", "who": "w"}):  # fmt: skip
        assert resume(served, run, **wrong)["status"] == "REJECT", wrong
    assert served.state(run) == "PAUSED"

    before, rounds = committed_when(served.tiny.store), len(list(store.root.glob("rounds/*")))
    assert resume(served, run, approve="yes", reason="the balls land now", who="Ada")["status"] == "ACCEPT"
    ends(served, run)
    held = champion.read(store)
    assert held == champion.Champion(summary["policy_after"], round_id, "Ada", "the balls land now")
    settled = read_summary(store, round_id).model_dump()
    assert settled["promoted"]
    assert (settled["approval"]["answer"], settled["approval"]["who"]) == ("yes", "Ada")
    # Nothing was computed again, not even looked for: the same files, one round, one subflow.
    assert committed_when(served.tiny.store) == before
    assert len(list(store.root.glob("rounds/*"))) == rounds
    children = served.ask("/flow_runs/filter", {"flow_runs": {"parent_flow_run_id": {"any_": [run]}}})
    assert len(children) == 1
    assert told.events() == ["waiting for approval", "promoted"]
    assert told.got[0]["url"].endswith(run)
    kept_secret(served, told.secret)


def environments(served: Served) -> list[str]:
    found = []
    for pid in served.processes():
        try:
            found.append(Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return found


def test_no_worker_and_no_run_knows_the_address_from_its_environment(served: Served, told: Webhook) -> None:
    workers = [
        pid
        for pid, line in served.processes().items()
        if "worker start" in line or "flows.serving.server" in line
    ]
    assert len(workers) == 2
    for pid in workers:
        assert told.secret not in Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")


def test_no_and_a_night_while_the_question_is_open(served: Served, told: Webhook) -> None:
    store = Store.open(served.tiny.store)
    run, round_id = suspended(served)
    before = champion.history(store)
    skipped = served.run("nightly", overrides=PROMOTES)
    found = served.until(skipped, *ENDED)
    assert found["state_name"] == "Skipped", found["state"]
    assert f"round {round_id} waits for a person's approval" in found["state"]["message"]
    assert served.state(run) == "PAUSED"
    resume(served, run, approve="no", reason="they look | frozen <b>", who="Ada")
    ends(served, run)
    assert champion.history(store) == before
    settled = read_summary(store, round_id).model_dump()
    assert not settled["promoted"]
    assert settled["approval"]["reason"] == "they look | frozen <b>"
    assert "Ada said no" in settled["verdict"]
    assert told.events()[-3:] == ["waiting for approval", "skipped", "kept"]


def test_a_champion_moved_in_the_meantime(served: Served, vidloop: Callable[..., Ended]) -> None:
    store = Store.open(served.tiny.store)
    run, round_id = suspended(served)
    rejected = [
        summary
        for path in sorted(store.root.glob("rounds/*"))
        if (summary := read_summary(store, path.name).model_dump()).get("approval", {}).get("answer") == "no"
    ]
    other = rejected[-1]["policy_after"]
    assert vidloop("champion", "set", other, "--store", served.tiny.store).code == 0
    resume(served, run, approve="yes", reason="good", who="Ada")
    ends(served, run)
    assert champion.history(store)[-1] == champion.Champion(other, "set by hand")
    settled = read_summary(store, round_id).model_dump()
    assert not settled["promoted"]
    assert f"but the champion is {other} by now" in settled["verdict"]


def test_no_answer_in_time(served: Served, told: Webhook) -> None:
    store = Store.open(served.tiny.store)
    run, round_id = suspended(served, hours=0.02)
    before = champion.history(store)
    found = served.until(run, *ENDED, limit_s=300)
    assert (found["state_type"], found["state"]["message"]) == (
        "FAILED",
        "The flow was paused and never resumed.",
    )
    assert champion.history(store) == before
    wait_for("word of it", lambda: "failed" in told.events("nightly"), 60)
    assert resume(served, run, approve="yes", reason="late", who="Ada")["status"] != "ACCEPT"

    # The next night writes down that nobody answered, and is played.
    later = served.run("nightly", overrides=["finetune.steps=4"])
    ends(served, later)
    settled = read_summary(store, round_id).model_dump()
    assert (settled["promoted"], settled["approval"]["answer"]) == (False, "none")
    assert champion.history(store) == before


def test_approval_wants_a_deployment(served: Served, vidloop: Callable[..., Ended], tmp_path: Path) -> None:
    code = (
        "from flows.serving.prefect_settings import apply; apply()\n"
        "from flows.rounds.nightly import nightly_flow\n"
        f"nightly_flow(recipe={str(served.tiny.recipe)!r}, store={str(tmp_path / 'store')!r}, approval=True)\n"
    )
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-c", code], env=served.config.client_environment(served.auth),
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode != 0
    assert "approval wants a run of the deployment `nightly`" in done.stderr + done.stdout
    assert not list((tmp_path / "store").glob("manifests/*/*"))
