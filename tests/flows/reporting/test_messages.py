from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from flows.reporting import console as terminal
from flows.reporting.messages import program
from flows.reporting.words import duration
from tasks.score import ScoreShard
from tasks.units import StageResult


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0, "0.0 s"), (0.44, "0.4 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1 min 0 s"),
        (185, "3 min 5 s"), (3599.7, "1 h 0 min"), (7440, "2 h 4 min"),
    ],
)  # fmt: skip
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_program_is_named_as_it_was_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/else/pytest"])
    assert program() == "vidloop"
    monkeypatch.setattr(sys, "argv", [".venv/bin/vidloop"])
    assert program() == ".venv/bin/vidloop"


def test_a_stage_is_a_line_or_two_where_there_is_no_terminal() -> None:
    out = io.StringIO()
    reporter = terminal.to_console(Console(file=out, width=80))
    reporter.on_stage_start("score")
    reporter.on_phase_start("score", "score-shard", 3)
    reporter.on_phase_end("score", "score-shard")
    reporter.on_stage_end(StageResult("score", "k", 61.2, 3, 1))
    assert out.getvalue().splitlines() == [
        "2/5 score: what the rewards say of them",
        "    done in 1 min 1 s: 3 units, 1 cached, 2 computed",
    ]


def test_progress_without_a_terminal_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    out = io.StringIO()
    reporter = terminal.to_console(Console(file=out, width=80))
    reporter.on_phase_start("finetune", "finetune-policy", 1)
    for done in range(1, 101):
        now[0] += 1
        reporter.on_steps("finetune", None, done, 100)  # type: ignore[arg-type]  # the unit's label is for the bar
    assert out.getvalue().splitlines() == [
        f"    {done} of 100 steps, about {duration(100 - done)} left" for done in (20, 40, 60, 80)
    ]


def test_scoring_says_how_many_clips_a_minute_and_counts_no_cached_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    out = io.StringIO()
    reporter = terminal.to_console(Console(file=out, width=80))
    shard = ScoreShard("store", "key", "digest", (), "clips", clips=16)
    reporter.on_phase_start("score", "score-shard", 60)
    for _ in range(20):
        reporter.on_unit_end("score", shard, True, 0.0)
    for _ in range(39):
        now[0] += 10
        reporter.on_unit_end("score", shard, False, 10.0)
    lines = out.getvalue().splitlines()
    assert lines[0] == "    22 of 60 units, 96 clips a minute, about 35 s left"
    assert all(", 96 clips a minute, about " in line for line in lines)
    # Another list begins anew; where clips are slow, a tenth counts.
    reporter.on_phase_start("evaluate", "score-shard", 3)
    now[0] += 600
    reporter.on_unit_end("evaluate", shard, False, 600.0)
    assert out.getvalue().splitlines()[-1] == "    1 of 3 units, 1.6 clips a minute, about 20 min 0 s left"
    reporter.on_phase_start("evaluate", "evaluate-policy", 2)
    now[0] += 60
    reporter.on_unit_end("evaluate", ScoreShard("store", "key", "digest", (), "comparison"), False, 60.0)
    assert "clips" not in out.getvalue().splitlines()[-1]


def test_a_bar_is_drawn_on_a_terminal_and_taken_away() -> None:
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True)
    reporter = terminal.to_console(console)
    reporter.on_phase_start("generate", "generate-shard", 2)
    reporter.on_unit_end("generate", ScoreShard("store", "key", "digest", (), "clips"), False, 1.0)
    reporter.on_phase_end("generate", "generate-shard")
    reporter.info("after the bar")
    assert "generate-shard" in out.getvalue()
    assert out.getvalue().rstrip().endswith("after the bar")
