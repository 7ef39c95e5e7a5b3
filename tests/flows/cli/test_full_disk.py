"""A disk that is full while a checkpoint is written: the path is named, and the round goes on from there."""

from __future__ import annotations

from collections import Counter

import pytest
import typer.testing

import flows.cli.round
from data.store import failpoints
from flows.cli.app import app
from tests.tiny_round import Tiny

COMMANDS = (flows.cli.round,)


@pytest.mark.parametrize("nth", [1, 2])
def test_a_full_disk_in_a_checkpoint_names_the_path(
    nth: int, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    def command() -> typer.testing.Result:
        return typer.testing.CliRunner().invoke(app, ["round", *tiny.args("--plain")])

    with monkeypatch.context() as full:
        full.setattr(failpoints, "_passes", Counter())
        full.setenv("VIDLOOP_FAILPOINT", f"finetune.after_checkpoint:{nth}")
        full.setenv("VIDLOOP_FAILPOINT_ACTION", "enospc")
        ended = command()
    assert ended.exit_code == 2, ended.output
    said = "".join(ended.output.split())
    assert f"diskfullat{tiny.store}/scratch/" in said
    assert f"step-0000000{2 * nth}.checkpoint" in said
    assert command().exit_code == 0
