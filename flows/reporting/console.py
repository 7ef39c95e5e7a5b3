"""What a person sees while a round runs: the plan in numbers, a line a stage, a bar, the verdict."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from flows.config.log import logger
from flows.reporting.messages import conclusion, introduction
from flows.reporting.words import duration
from tasks.context import RoundContext
from tasks.stages import STAGES
from tasks.summary import RoundSummary
from tasks.units import Listener, StageResult, Unit

# Without a terminal there is no bar: a line now and then instead.
_LINE_EVERY_S: Final = 20.0


class ProgressReporter(Listener):
    """Tells the story of a round in lines, and draws a progress bar where there is a terminal."""

    def __init__(
        self,
        write: Callable[[str], None],
        console: Console | None = None,
        options: Sequence[str] | None = None,
    ) -> None:
        self._write = write
        self._options = options
        self._console = console if console is not None and console.is_terminal else None
        self._bar: Progress | None = None
        self._begun = self._last_line = time.monotonic()
        self._total = self._done = self._computed = self._clips = 0

    def info(self, line: str) -> None:
        """Say anything."""
        self._write(line)

    def on_round_start(self, context: RoundContext) -> None:
        """Say what is going to happen, in numbers."""
        for line in introduction(context):
            self._write(line)

    def on_stage_start(self, stage: str) -> None:
        """Say which stage begins."""
        self._write(f"{list(STAGES).index(stage) + 1}/{len(STAGES)} {stage}: {STAGES[stage].title}")

    def on_stage_end(self, result: StageResult) -> None:
        """Say what the stage took."""
        computed = result.shards - result.cached_shards
        units = f"{result.shards} {'unit' if result.shards == 1 else 'units'}"
        line = f"{units}, {result.cached_shards} cached, {computed} computed"
        self._write(f"    done in {duration(result.seconds)}: {line}")

    def on_round_end(self, context: RoundContext, summary: RoundSummary) -> None:
        """Say the verdict, and what to do next."""
        for line in conclusion(context, summary, self._options):
            self._write(line)

    def on_phase_start(self, stage: str, task: str, total: int) -> None:
        self._total, self._done, self._computed, self._clips = total, 0, 0, 0
        self._begun = self._last_line = time.monotonic()
        if self._console is not None:
            text = TextColumn("    {task.description}")
            columns = (text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._bar.add_task(task, total=total)
            self._bar.start()

    def on_unit_end(self, stage: str, unit: Unit, cached: bool, seconds: float) -> None:
        self._done += 1
        self._computed += not cached
        self._clips += 0 if cached else unit.clips_scored
        rate = self._clips_a_minute()
        if self._bar is not None:
            text = f"{unit.task}, {rate}" if rate else None
            self._bar.update(self._bar.task_ids[0], description=text, advance=1)
        elif self._computed and self._done < self._total:
            line = f"{self._done} of {self._total} units" + (f", {rate}" if rate else "")
            self._now_and_then(line, self._done, self._total)

    def on_steps(self, stage: str, unit: Unit, done: int, total: int) -> None:
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], description=unit.label, completed=done, total=total)
        elif done < total:
            self._now_and_then(f"{done} of {total} steps", done, total)

    def on_network(self, stage: str, role: str, line: str) -> None:
        self._write(f"    {role}: {line}")

    def on_phase_end(self, stage: str, task: str) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _clips_a_minute(self) -> str:
        """How fast clips were scored since this phase began; empty if none was. Cached ones do not count."""
        spent = time.monotonic() - self._begun
        if not self._clips or spent <= 0:
            return ""
        rate = 60 * self._clips / spent
        return f"{rate:.0f} clips a minute" if rate >= 9.5 else f"{rate:.1f} clips a minute"

    def _now_and_then(self, line: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last_line >= _LINE_EVERY_S:
            self._last_line = now
            left = (now - self._begun) / done * (total - done)
            self._write(f"    {line}, about {duration(left)} left")


def to_console(console: Console, options: Sequence[str] | None = None) -> ProgressReporter:
    """Reports on a terminal, or in a file; `options` are those that `conclusion` repeats."""
    return ProgressReporter(
        lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True), console, options
    )


def to_log() -> ProgressReporter:
    """Reports in the log: Prefect's, where a flow runs."""
    return ProgressReporter(lambda line: logger().info("%s", line))


_chosen: list[ProgressReporter] = []


def current() -> ProgressReporter:
    """The reporter that was chosen, or the log."""
    return _chosen[-1] if _chosen else to_log()


def choose(reporter: ProgressReporter) -> None:
    """Make `reporter` the current one of this process."""
    _chosen[:] = [reporter]


def info(line: str) -> None:
    """Say something by the current reporter."""
    current().info(line)
