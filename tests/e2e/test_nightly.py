"""The deployment `nightly` on a real server: it fires by itself, not twice at once, after a restart too, and moves
the champion as the gate says. Its schedule is a person's.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from data import champion
from data.store import Store
from flows.rounds.notify import NOTIFY_VARIABLE
from flows.serving.server_config import ServerConfig
from flows.serving.supervisor import bootstrap_command
from tests.served import ENDED, PATIENCE_S, Served, newest_summary, parts_are_whole, serving, wait_for
from tests.tiny_nights import (
    BREAKS_A_GUARD,
    EVERY_MINUTE,
    KEEPS,
    PROMOTES,
    deployment,
    fill_in,
    kept_secret,
    nights,
    occupied,
    switch,
    webhook,
)
from tests.tiny_nights import Webhook as Told
from tests.tiny_round import ROOT, Ended, Tiny, committed, summaries

pytestmark = pytest.mark.slow

DEVICES = ("standin-0", "standin-1")
# A minute until the next full one, the server's and the worker's own rhythm, and the start of a process.
SOON_S = 300.0


@pytest.fixture(scope="module")
def told() -> Iterator[Told]:
    with webhook() as one:
        yield one


def of_one_size(recipe: dict[str, Any]) -> None:
    """All nights train adapters of the size that `PROMOTES` asks for: each goes on with the champion's."""
    recipe["finetune"] |= {"rank": 8, "alpha": 256.0}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, calm_model: Path, told: Told) -> Iterator[Served]:
    os.environ[NOTIFY_VARIABLE] = told.url
    try:
        asked = ("--nightly", "30 4 1 1 *", "--timezone", "Europe/Berlin")
        with serving(
            tmp_path_factory.mktemp("nights"), calm_model, *asked, devices=DEVICES, changes=of_one_size
        ) as one:
            yield one
    finally:
        del os.environ[NOTIFY_VARIABLE]


def bootstrap(served: Served, config: ServerConfig | None = None) -> str:
    """As the next start of `vidloop serve` does it; what it says."""
    done = subprocess.run(
        bootstrap_command(config or served.config), cwd=ROOT,
        env=served.config.client_environment(served.auth), capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def plan(served: Served, name: str = "nightly") -> tuple[bool, str, str]:
    """Whether a schedule is on, and what it says."""
    (one,) = deployment(served, name)["schedules"]
    return one["active"], one["schedule"]["cron"], one["schedule"]["timezone"]


def test_the_switch_is_a_persons_and_the_next_start_leaves_it(served: Served) -> None:
    assert plan(served) == (True, "30 4 1 1 *", "Europe/Berlin")
    assert plan(served, "gc") == (False, "0 12 * * 0", "UTC")
    held = deployment(served)
    assert held["work_queue_name"] == "nightly"
    assert held["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    assert held["global_concurrency_limit"]["limit"] == 1

    switch(served, False)
    fill_in(served, recipe=str(served.tiny.recipe), approval_hours=3)
    bootstrap(served)  # with the same --nightly
    assert plan(served) == (False, "30 4 1 1 *", "Europe/Berlin")
    kept = deployment(served)["parameters"]
    assert (kept["recipe"], kept["approval_hours"], kept["store"]) == (
        str(served.tiny.recipe),
        3,
        str(served.tiny.store),
    )
    switch(served, True, {"cron": "15 5 1 1 *", "timezone": "UTC"})
    assert "note: " not in bootstrap(served)
    assert plan(served) == (True, "15 5 1 1 *", "UTC")
    switch(served, False)
    try:
        bootstrap(served, served.config.changed(nightly="45 3 1 1 *"))  # another one is a new wish
        assert plan(served) == (True, "45 3 1 1 *", "Europe/Berlin")
        bootstrap(served, served.config.changed(nightly=""))  # none is no wish
        assert plan(served) == (True, "45 3 1 1 *", "Europe/Berlin")
    finally:
        switch(served, False)


def test_a_recipe_that_is_gone_stays_a_persons_choice_and_is_told(served: Served) -> None:
    """No night may quietly play another recipe, and a server must start without it."""
    fill_in(served, recipe=str(served.tiny.recipe))
    away = served.tiny.recipe.with_suffix(".away")
    served.tiny.recipe.rename(away)
    try:
        said = bootstrap(served)
        held, other = (deployment(served, name) for name in ("nightly", "round"))
    finally:
        away.rename(served.tiny.recipe)
        bootstrap(served)
    assert f"note: deployment nightly: its recipe {served.tiny.recipe} is no longer there" in said
    assert held["parameters"]["recipe"] == str(served.tiny.recipe)
    choices = [one["parameter_openapi_schema"]["properties"]["recipe"]["enum"] for one in (held, other)]
    assert [str(served.tiny.recipe) in enum for enum in choices] == [True, False]


def play_one(served: Served, overrides: list[str]) -> dict[str, Any]:
    run = served.run("nightly", overrides=overrides)
    found = served.until(run, *ENDED)
    assert found["state_type"] == "COMPLETED", (found["state"], served.log(run))
    return newest_summary(served.tiny.store)


def test_it_promotes_or_keeps_as_the_gate_says(served: Served, told: Told) -> None:
    store = Store.open(served.tiny.store, create=True)
    told.got.clear()
    kept = play_one(served, KEEPS)
    assert (kept["promoted"], champion.read(store)) == (False, None)
    assert "not surely better" in kept["verdict"]

    broken = play_one(served, BREAKS_A_GUARD)
    assert (broken["promoted"], broken["guards"]["flicker"]["ok"], champion.read(store)) == (
        False,
        False,
        None,
    )

    promoted = play_one(served, PROMOTES)
    assert promoted["promoted"], promoted["verdict"]
    assert champion.history(store) == [champion.Champion(promoted["policy_after"], promoted["round"])]
    assert len({kept["recipe"]["seed"], broken["recipe"]["seed"], promoted["recipe"]["seed"]}) == 3

    after = play_one(served, KEEPS)
    assert (after["policy_before"], after["promoted"]) == (promoted["policy_after"], False)
    assert len(champion.history(store)) == 1
    assert told.events() == ["kept", "kept", "promoted", "kept"]
    assert told.got[2]["verdict"] == promoted["verdict"]
    assert told.got[2]["url"].startswith(f"{served.config.ui}/")
    assert [one["round"] for one in told.got] == [one["round"] for one in (kept, broken, promoted, after)]


def test_a_killed_night_leaves_the_champion_is_told_and_goes_on_the_next_time(
    served: Served, told: Told
) -> None:
    store = Store.open(served.tiny.store)
    before = champion.read(store)
    told.got.clear()
    with occupied(served, *DEVICES):
        waited = waits(served)
        run = served.run("nightly")
        wait_for("wait for a device", lambda: waits(served) > waited)
        os.kill(served.flow_process(run), signal.SIGKILL)
        assert served.until(run, *ENDED)["state_type"] == "CRASHED"
    assert champion.read(store) == before
    wait_for("word of the crash", lambda: "crashed" in told.events("nightly"), 60)
    (crash,) = [one for one in told.got if one["event"] == "crashed" and one["flow"] == "nightly"]
    assert crash["id"] == run
    seed = json.loads(max(served.tiny.store.glob("rounds/*/recipe.json")).read_text())["seed"]
    again = play_one(served, KEEPS)
    assert again["recipe"]["seed"] == seed
    kept_secret(served, told.secret)


def test_it_fires_by_itself_and_a_second_one_is_cancelled_and_a_restart_changes_nothing(
    served: Served, told: Told
) -> None:
    store = Store.open(served.tiny.store, create=True)
    fill_in(served, recipe=str(served.tiny.recipe))
    with occupied(served, *DEVICES):
        waited = waits(served)
        switch(served, True, EVERY_MINUTE)
        (running,) = wait_for("night that nobody started", lambda: nights(served, "RUNNING"), SOON_S)
        wait_for("wait for a device", lambda: waits(served) > waited)

        def cancelled() -> list[dict[str, Any]]:
            return [run for run in nights(served, "CANCELLED") if run["id"] != running["id"]]

        first = wait_for("second night, cancelled", cancelled, SOON_S)[0]
        assert first["state"]["message"] == "Deployment concurrency limit reached."
        assert served.state(running["id"]) == "RUNNING"

        # The night on survives the server's end, and goes on to be the only one.
        os.kill(served.pid("flows.serving.server"), signal.SIGKILL)
        count = len(cancelled_or_none(served))

        def one_more() -> bool:
            return len(cancelled_or_none(served)) > max(count, 1)

        wait_for("another night, cancelled after the restart", one_more, SOON_S)
        # Its hold on the limit is renewed at the server that does not remember having given it.
        held = leases(served)
        assert held
        wait_for("renewal", lambda: leases(served) > held, 300)
        assert served.state(running["id"]) == "RUNNING"
    found = served.until(running["id"], *ENDED)
    assert found["state_type"] == "COMPLETED", (found["state"], served.log(running["id"]))
    rounds = len(list(store.root.glob("rounds/*/summary.json")))

    # The limit is free again: the next one fires, also after one more restart with nothing on.
    os.kill(served.pid("flows.serving.server"), signal.SIGKILL)

    def another() -> list[dict[str, Any]]:
        done = [run for run in safely(served, "COMPLETED") if run["state_name"] == "Completed"]
        return [run for run in done if run["start_time"] > found["end_time"]]

    wait_for("next night, completed", another, 2 * SOON_S)
    switch(served, False)
    wait_for("end of what still runs", lambda: not nights(served, "RUNNING", "PENDING"), SOON_S)
    assert len(list(store.root.glob("rounds/*/summary.json"))) > rounds
    parts_are_whole(served.tiny.store)


def waits(served: Served) -> int:
    """How often a run has said that it waits for a device: a stage does, in a run of its own."""
    texts = [served.config.worker_log(device).read_text("utf-8") for device in DEVICES]
    return sum(text.count("waiting for device") for text in texts)


def leases(served: Served) -> list[str]:
    """When the holds on limits of deployments end, unless they are renewed."""
    folder = Path(served.config.folder) / "prefect" / "concurrency_leases"
    found = [json.loads(path.read_text()) for path in folder.glob("*-*.json")]
    return sorted(one["expiration"] for one in found)


def cancelled_or_none(served: Served) -> list[dict[str, Any]]:
    return safely(served, "CANCELLED")


def safely(served: Served, *states: str) -> list[dict[str, Any]]:
    """`nights`, of a server that may be starting."""
    from flows.serving.api_client import Refused

    try:
        return nights(served, *states)
    except (OSError, ValueError, Refused):
        assert served.process.poll() is None
        return []


def test_of_nights_that_waited_for_a_slot_one_is_played_and_the_next_is_skipped(
    served: Served, told: Told
) -> None:
    served.set_slots(1)
    told.got.clear()
    Store.open(served.tiny.store, create=True)
    fill_in(served, recipe=str(served.tiny.recipe))
    try:
        with occupied(served, *DEVICES):
            waited = waits(served)
            persons = served.run("generate", seed=77)
            wait_for("wait for a device", lambda: waits(served) > waited)
            switch(served, True, EVERY_MINUTE)
            first, second = wait_for("two nights that are late", lambda: two_late(served), SOON_S)
        assert served.until(persons, *ENDED)["state_type"] == "COMPLETED"
        # Switched off now, Prefect would delete those that wait.
        played = served.until(first["id"], *ENDED)
        assert (played["state_type"], played["state_name"]) == ("COMPLETED", "Completed"), played["state"]
        skipped = served.until(second["id"], *ENDED)
        assert (skipped["state_type"], skipped["state_name"]) == ("COMPLETED", "Skipped"), skipped["state"]
        said = skipped["state"]["message"]
        assert said.startswith("This night is not played: it was due at")
        assert played["name"] in said
        assert "skipped" in told.events("nightly")
    finally:
        switch(served, False)
        wait_for("end of what still runs", lambda: not nights(served, "RUNNING", "PENDING"), SOON_S)
        served.set_slots(2)


def two_late(served: Served) -> list[dict[str, Any]]:
    """The first two nights that wait past their time, once there are two."""
    late = [run for run in nights(served, "SCHEDULED") if run["state_name"] == "Late"]
    return late[:2] if len(late) > 1 else []


def test_gc_counts_first_and_removes_when_told_and_never_what_the_champion_rests_on(served: Served) -> None:
    store = Store.open(served.tiny.store)
    lost = store.write_media(b"nobody names this", "mp4")
    for path in served.tiny.store.rglob("*"):
        if path.is_file():
            os.utime(path, (1, 1))
    young = store.write_media(b"nor this, yet", "mp4")
    served.execute(
        "UPDATE flow_run SET end_time = '2020-01-01 00:00:00.000000' WHERE id IN "
        "(SELECT id FROM flow_run WHERE end_time IS NOT NULL ORDER BY end_time LIMIT 5)"
    )
    before = committed(served.tiny.store)

    def ancient() -> int:
        body = {"flow_runs": {"end_time": {"before_": "2021-01-01T00:00:00Z"}}}
        return int(served.ask("/flow_runs/count", body))

    assert ancient() == 5
    run = start(served, "gc")
    assert served.until(run, *ENDED)["state_type"] == "COMPLETED", served.log(run)
    wait_for("count", lambda: any(line.startswith("5 runs would be removed") for line in served.log(run)))
    assert (ancient(), committed(served.tiny.store)) == (5, before)

    run = start(served, "gc", dry_run=False)
    assert served.until(run, *ENDED)["state_type"] == "COMPLETED", served.log(run)
    assert ancient() == 0
    assert not store.path(lost.path).exists()
    assert store.path(young.path).exists()
    reached = {item.path for manifest in store.manifests() for item in manifest.files}
    assert reached <= committed(served.tiny.store).keys()
    parts_are_whole(served.tiny.store)
    held = champion.read(store)
    assert held is not None
    assert play_one(served, KEEPS)["policy_before"] == held.policy_id


def start(served: Served, name: str, **parameters: Any) -> str:
    """Send the form of a deployment that knows no recipe."""
    body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
    return str(served.ask(f"/deployments/{deployment(served, name)['id']}/create_flow_run", body)["id"])


def test_from_the_command_line(tiny: Tiny, vidloop: Callable[..., Ended], told: Told) -> None:
    told.got.clear()
    for _ in range(2):
        ended = vidloop("nightly", "--plain", *tiny.args(), **{NOTIFY_VARIABLE: told.url})
        assert ended.code == 0, ended.err
        assert told.secret not in ended.out + ended.err
    assert "Nights " in ended.out
    assert "0 of 2 rounds promoted their candidate" in ended.out
    rounds = {one["round"]: one["recipe"]["seed"] for one in summaries(tiny.store)}
    # The server of the other tests tells the same address.
    assert [one["event"] for one in told.got if one["round"] in rounds] == ["kept", "kept"]
    assert len(set(rounds.values())) == 2


def test_wrong_times_and_addresses_are_refused_and_an_address_is_not_repeated(
    vidloop: Callable[..., Ended], tmp_path: Path
) -> None:
    ended = vidloop("serve", "--folder", tmp_path / "a", "--nightly", "every night")
    assert (ended.code, "say cron's five fields" in ended.err) == (2, True)
    ended = vidloop(
        "serve", "--folder", tmp_path / "a", "--nightly", "0 2 * * *", "--timezone", "Middle/Earth"
    )
    assert (ended.code, "Middle/Earth" in ended.err) == (2, True)
    ended = vidloop("serve", "--folder", tmp_path / "a", "--notify", "hooks.example/T0kenThatNobodyMayRead")
    assert (ended.code, "not one of http:// or https://" in ended.err) == (2, True)
    assert "T0ken" not in ended.err + ended.out
