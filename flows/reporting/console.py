"""What a person sees while a round runs: the plan in numbers, a line a stage, a bar, the verdict."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from flows.reporting.messages import conclusion, introduction
from flows.reporting.words import duration
from tasks.context import RoundContext
from tasks.score import ScoreShard
from tasks.stages import STAGES
from tasks.units import Listener, StageResult, Unit

# Without a terminal there is no bar: a line now and then instead.
_LINE_EVERY_S: Final = 20.0
_WHAT: Final = {
    "generate": "clips from the policy",
    "score": "what the rewards say of them",
    "curate": "what is worth learning from",
    "finetune": "learning",
    "evaluate": "before against after",
}


class Voice(Listener, Protocol):
    """Tells the story of a round."""

    def introduces(self, context: RoundContext) -> None:
        """What is going to happen, in numbers."""

    def stage_begins(self, stage: str) -> None:
        """A stage begins."""

    def stage_ends(self, result: StageResult) -> None:
        """A stage is done."""

    def concludes(self, context: RoundContext, summary: Mapping[str, Any]) -> None:
        """The verdict, and what to do next."""

    def says(self, line: str) -> None:
        """Anything else."""


class Lines:
    """A voice that writes lines, and draws a progress bar where there is a terminal."""

    def __init__(self, write: Callable[[str], None], console: Console | None = None) -> None:
        self._write = write
        self._console = console if console is not None and console.is_terminal else None
        self._bar: Progress | None = None
        self._begun = self._told = time.monotonic()
        self._total = self._done = self._computed = self._clips = 0

    def introduces(self, context: RoundContext) -> None:
        """See `Voice`."""
        for line in introduction(context):
            self._write(line)

    def stage_begins(self, stage: str) -> None:
        """See `Voice`."""
        self._write(f"{list(STAGES).index(stage) + 1}/5 {stage}: {_WHAT[stage]}")

    def stage_ends(self, result: StageResult) -> None:
        """See `Voice`."""
        computed = result.shards - result.cached_shards
        units = f"{result.shards} {'unit' if result.shards == 1 else 'units'}"
        told = f"{units}, {result.cached_shards} cached, {computed} computed"
        self._write(f"    done in {duration(result.seconds)}: {told}")

    def concludes(self, context: RoundContext, summary: Mapping[str, Any]) -> None:
        """See `Voice`."""
        for line in conclusion(context, summary):
            self._write(line)

    def says(self, line: str) -> None:
        """See `Voice`."""
        self._write(line)

    def begins(self, stage: str, task: str, total: int) -> None:
        """See `Listener`."""
        self._total, self._done, self._computed, self._clips = total, 0, 0, 0
        self._begun = self._told = time.monotonic()
        if self._console is not None:
            text = TextColumn("    {task.description}")
            columns = (text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._bar.add_task(task, total=total)
            self._bar.start()

    def unit(self, stage: str, unit: Unit, cached: bool, seconds: float) -> None:
        """See `Listener`."""
        self._done += 1
        self._computed += not cached
        if isinstance(unit, ScoreShard) and not cached:
            self._clips += unit.clips
        rate = self._clips_a_minute()
        if self._bar is not None:
            text = f"{unit.task}, {rate}" if rate else None
            self._bar.update(self._bar.task_ids[0], description=text, advance=1)
        elif self._computed and self._done < self._total:
            told = f"{self._done} of {self._total} units" + (f", {rate}" if rate else "")
            self._now_and_then(told, self._done, self._total)

    def steps(self, stage: str, unit: Unit, done: int, total: int) -> None:
        """See `Listener`."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], description=unit.label, completed=done, total=total)
        elif done < total:
            self._now_and_then(f"{done} of {total} steps", done, total)

    def ends(self, stage: str, task: str) -> None:
        """See `Listener`."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _clips_a_minute(self) -> str:
        """How fast clips were scored since this list began; empty if none was. Cached ones do not count."""
        spent = time.monotonic() - self._begun
        if not self._clips or spent <= 0:
            return ""
        rate = 60 * self._clips / spent
        return f"{rate:.0f} clips a minute" if rate >= 9.5 else f"{rate:.1f} clips a minute"

    def _now_and_then(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._told >= _LINE_EVERY_S:
            self._told = now
            left = (now - self._begun) / done * (total - done)
            self._write(f"    {what}, about {duration(left)} left")


def to_console(console: Console) -> Lines:
    """A voice on a terminal, or in a file."""
    return Lines(lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True), console)


def to_log() -> Lines:
    """A voice in the log: Prefect's, where a flow runs."""
    return Lines(lambda line: _logger().info("%s", line))


def _logger() -> logging.Logger | logging.LoggerAdapter[logging.Logger]:
    if "prefect" in sys.modules:
        from prefect.exceptions import MissingContextError
        from prefect.logging import get_run_logger

        try:
            return get_run_logger()
        except MissingContextError:
            pass
    return logging.getLogger("vidloop")


_chosen: list[Voice] = []


def current() -> Voice:
    """The voice that was chosen, or the log."""
    return _chosen[-1] if _chosen else to_log()


def choose(voice: Voice) -> None:
    """Make `voice` the current one of this process."""
    _chosen[:] = [voice]
