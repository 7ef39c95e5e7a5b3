"""Answers that an operator disbelieves: they are told with their reasons, set aside, and asked for again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer.testing

import flows.cli.round
import rewards.sharpness
from data.store import Store
from flows.cli.app import app
from rewards.base import CannotJudge
from tests.flows.cli.test_machine_faults import scores
from tests.tiny_round import Tiny, committed, summaries

COMMANDS = (flows.cli.round,)
ECC = "RuntimeError: CUDA error: uncorrectable ECC error encountered"


def command(tiny: Tiny, name: str, *more: str) -> typer.testing.Result:
    settings = ("--set", "rewards=[sharpness]", "--set", "score.max_failed_share=1.0")
    plain = () if name == "plan" else ("--plain",)
    return typer.testing.CliRunner().invoke(app, [name, *tiny.args(*plain, *settings, *more)])


def break_clips(patch: pytest.MonkeyPatch, *reasons: str) -> None:
    """The first clips that reward sharpness sees have no value, now or later, each for a reason."""
    whole, ill = rewards.sharpness.sharpness, dict[bytes, str]()

    def broken(frames: Any) -> float:
        if len(ill) < len(reasons):
            ill.setdefault(frames.tobytes(), reasons[len(ill)])
        if reason := ill.get(frames.tobytes()):
            raise CannotJudge(reason)
        return whole(frames)

    patch.setattr(rewards.sharpness, "sharpness", broken)


@pytest.fixture
def older(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> Tiny:
    """A store of a version that took what the machine raised for the clip's failure: of 3 clips in 9."""
    assert command(tiny, "generate").exit_code == 0
    with monkeypatch.context() as ill:
        break_clips(ill, ECC, ECC, "too few frames")
        said = command(tiny, "score")
    assert said.exit_code == 0, said.output
    assert f"3 of 9 clips have no value by sharpness: {ECC} (2); too few frames (1)" in said.output
    assert sum(row.value is None for row in scores(tiny.store)) == 3
    return tiny


def test_what_was_disbelieved_is_asked_again_and_nothing_is_lost(older: Tiny) -> None:
    before = committed(older.store)
    planned = command(older, "plan")
    assert "vidloop score --again sharpness --failed" in planned.output
    assert "3 of 9 clips have no value" in command(older, "score").output  # cached, and said again

    again = command(older, "score", "--again", "sharpness", "--failed")
    assert again.exit_code == 0, again.output
    assert "sharpness is asked again about 3 clips" in again.output
    assert [row.status for row in scores(older.store)] == ["ok"] * 9
    assert "no value" not in again.output + command(older, "plan").output

    aside = older.store / "aside"
    kept = {path.relative_to(aside).as_posix(): path.read_bytes() for path in aside.rglob("*.*")}
    after = committed(older.store)
    for name, content in before.items():
        assert content in (after.get(name), kept.get(name)), name
    lines = [json.loads(line) for line in (aside / "log.jsonl").read_text().splitlines()]
    assert {line["why"] for line in lines} == {"released: sharpness, failed"}
    facts = "".join(path.read_text() for path in (older.store / "runs").glob("*.jsonl"))
    assert '"event": "released"' in facts


def test_a_condition_releases_the_clips_that_it_names(older: Tiny) -> None:
    named = command(older, "score", "--again", "sharpness", "--where", "error LIKE '%too few%' -- these")
    assert named.exit_code == 0, named.output
    assert "asked again about 1 clips" in named.output
    nobody = command(older, "score", "--again", "sharpness", "--failed", "--where", "seed < 0")
    assert nobody.exit_code == 0, nobody.output
    assert "nothing to ask again" in nobody.output


def test_what_cannot_be_released_is_refused(older: Tiny) -> None:
    for more, said in {
        ("--again", "sharpness", "--where", "no_such_column = 1"): "no_such_column",
        ("--again", "nobody"): "nobody",
        ("--failed",): "--again",
    }.items():
        ended = command(older, "score", *more)
        assert ended.exit_code == 2, ended.output
        assert said in ended.output
    assert sum(row.value is None for row in scores(older.store)) == 3


def test_summary_counts_clips_without_a_value_and_their_reasons(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_clips(monkeypatch, "too few frames")
    ended = command(tiny, "round")
    assert ended.exit_code == 0, ended.output
    (summary,) = summaries(Path(tiny.store))
    assert summary["failures"] == {"sharpness": {"clips": 9, "failed": 1, "reasons": {"too few frames": 1}}}
    assert Store.open(tiny.store).verify(summary["stages"]["curate"]["key"]) is None
