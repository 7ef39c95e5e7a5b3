"""kill -9 in the second of two rounds in a row, then the same command: it goes on, to the same bytes."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from data.store import Store
from flows.config.load import load_recipe
from flows.rounds.campaign import improve
from flows.rounds.plain import plain_round
from tasks.campaign_record import facts_of
from tests.tiny_round import Ended, Tiny, committed

CHANGES = ["improve.data=aggregated", "improve.prompts_per_round=2"]


@pytest.mark.slow
def test_killed_in_the_second_round(tiny: Tiny, vidloop: Callable[..., Ended], tmp_path: Path) -> None:
    whole = tiny.at(tmp_path / "whole")
    recipe = load_recipe(str(tiny.recipe), [*CHANGES, "improve.rounds=2"])
    undisturbed = improve(recipe, Store.open(whole.store, create=True), plain_round)
    # More than half of all parts, so the second round has begun.
    late = len([name for name in committed(whole.store) if name.startswith("parts/")]) // 2 + 3

    args = tiny.args("--plain", "--rounds", "2", *(text for one in CHANGES for text in ("--set", one)))
    killed = vidloop("improve", *args, VIDLOOP_FAILPOINT=f"store.after_part:{late}")
    assert killed.code == -signal.SIGKILL
    (path,) = tiny.store.glob("improvements/*/summary.json")
    facts = json.loads(path.read_text())
    assert (len(facts["rounds"]), facts["next"]["number"], facts["stopped_by"]) == (1, 2, None)

    ended = vidloop("improve", *args)
    assert ended.code == 0, ended.err
    assert "goes on after 1 finished rounds" in ended.out
    assert list(tiny.store.glob("improvements/*/summary.json")) == [path]
    facts = json.loads(path.read_text())
    assert [one["seed"] for one in facts["rounds"]] == [one.seed for one in undisturbed.rounds]
    assert [one["primary"] for one in facts["rounds"]] == [
        one["primary"] for one in facts_of(undisturbed)["rounds"]
    ]
    assert committed(tiny.store) == committed(whole.store)
