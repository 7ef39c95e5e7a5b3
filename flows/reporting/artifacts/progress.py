"""Progress in the UI while a stage runs: a bar for each list of units, and one for the round.

The units only note how far they are. A thread of its own sends it, at most once in `EVERY_S` seconds and at
the end of each stage: no unit and no next stage ever waits for the server, and a server that is away for a
while misses a few steps, nothing else.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from flows.reporting.artifacts import server
from flows.reporting.words import duration
from tasks.stages import STAGES
from tasks.units import Listener, Unit

EVERY_S: Final = 10.0
"""Seconds between two updates of a bar."""
PATIENCE_S: Final = 10.0
"""Seconds that the end of a round, or of a stage on its own, waits for the last updates."""


@dataclass
class Bar:
    """What a progress artifact says: the newest state, and the one that the server knows.

    Attributes:
        key: of the artifact.
        run: the flow run that it belongs to; None: the one at work.
        percent: 0 to 100.
        text: the same in words.
        artifact: its id, once the server has it.
        sent: what the server knows.
    """

    key: str
    run: UUID | None = None
    percent: float = 0.0
    text: str = ""
    artifact: UUID | None = None
    sent: tuple[float, str] | None = None

    def send(self) -> None:
        """Tell the server, if there is news. Raises what Prefect's client raises."""
        news = (self.percent, self.text)
        if news != self.sent:
            self.artifact = server.progress(self.key, *news, self.artifact, self.run)
            self.sent = news


class Sender:
    """A thread that keeps the server told of some bars."""

    def __init__(self, every_s: float = EVERY_S) -> None:
        self.bars: list[Bar] = []
        self._every_s = every_s
        self._wake = threading.Event()
        self._over = False
        # In a copy of this thread's context: by it Prefect knows its server.
        run = contextvars.copy_context().run
        self._thread = threading.Thread(target=run, args=(self._keep_sending,), name="progress", daemon=True)
        self._thread.start()

    def now(self) -> None:
        """Have news sent at once; nobody waits for it."""
        self._wake.set()

    def close(self) -> None:
        """Send the last news; a server that does not answer is not waited for."""
        self._over = True
        self.now()
        self._thread.join(PATIENCE_S)

    def _keep_sending(self) -> None:
        said = False
        while True:
            self._wake.wait(self._every_s)
            # Before looking: what is said from here on wakes this thread again.
            self._wake.clear()
            over = self._over
            for bar in list(self.bars):
                try:
                    bar.send()
                except Exception as error:  # tried again with the next news, and said once
                    if not said:
                        server.complain(f"the progress of {bar.key.removeprefix('progress-')}", error)
                    said = True
            if over:
                return


# Of the rounds that this process plays, by round id: the bar that their stages move, and who sends it.
_rounds: dict[str, tuple[Bar, Sender]] = {}


@contextmanager
def of_round(round_id: str) -> Iterator[None]:
    """While the block runs, the stages of a round move a bar in the flow run at work."""
    if not server.seen():
        yield
        return
    bar, sender = Bar("progress-round", server.own_run(), text=f"round {round_id} begins"), Sender()
    sender.bars.append(bar)
    _rounds[round_id] = bar, sender
    try:
        yield
        bar.percent, bar.text = 100.0, f"all {len(STAGES)} stages done"
    except BaseException:
        bar.text = f"ended early: {bar.text}"
        raise
    finally:
        del _rounds[round_id]
        sender.close()


@contextmanager
def of_stage(stage: str, round_id: str, listener: Listener, every_s: float = EVERY_S) -> Iterator[Listener]:
    """A listener that tells `listener` and the UI. The flow run at work is that of the stage.

    Args:
        stage: which stage.
        round_id: of the round that it is part of; its bar, if this process has one, moves too.
        listener: hears everything as if this were not here.
        every_s: seconds between two updates of a stage on its own.
    """
    if not server.seen():
        yield listener
        return
    bar, sender = _rounds.get(round_id) or (None, Sender(every_s))
    try:
        yield Bars(stage, listener, bar, sender.bars)
    finally:
        if bar is None:
            sender.close()
        else:
            sender.now()


class Bars(Listener):
    """A listener that turns what it hears into bars: one for each list of units, and the round's."""

    def __init__(
        self, stage: str, listener: Listener, round_bar: Bar | None = None, bars: list[Bar] | None = None
    ) -> None:
        """Listen in the flow run of a stage.

        Args:
            stage: which stage.
            listener: hears everything as if this were not here.
            round_bar: is moved too.
            bars: gets every bar that begins.
        """
        self.bars = [] if bars is None else bars
        self._listener, self._round = listener, round_bar
        self._run = server.own_run()
        self._place = list(STAGES).index(stage)
        self._stage, self._begun = stage, 0.0
        self._total = self._done = self._cached = 0
        self._lock = threading.Lock()

    def on_phase_start(self, stage: str, task: str, total: int) -> None:
        self._listener.on_phase_start(stage, task, total)
        with self._lock:
            self._total, self._done, self._cached = total, 0, 0
            self._begun = time.monotonic()
            self.bars.append(Bar(f"progress-{stage}", self._run, text=task))
            self._tell(0.0, _units(0, total), task)

    def on_unit_end(self, stage: str, unit: Unit, cached: bool, seconds: float) -> None:
        self._listener.on_unit_end(stage, unit, cached, seconds)
        with self._lock:
            self._done += 1
            self._cached += cached
            computed = self._done - self._cached
            kept = f"{unit.task}, {self._cached} from the cache" if self._cached else unit.task
            self._tell(self._done / self._total, _units(self._done, self._total), kept, computed)

    def on_steps(self, stage: str, unit: Unit, done: int, total: int) -> None:
        self._listener.on_steps(stage, unit, done, total)
        with self._lock:
            share = (self._done + done / total) / self._total
            self._tell(share, f"{done} of {total} steps", unit.label, done)

    def on_network(self, stage: str, role: str, line: str) -> None:
        self._listener.on_network(stage, role, line)

    def on_phase_end(self, stage: str, task: str) -> None:
        self._listener.on_phase_end(stage, task)

    def _tell(self, share: float, figures: str, what: str, computed: int = 0) -> None:
        """Move the bars. The UI cuts what it has no room for: the figures come first."""
        if computed and share < 1:
            left = (time.monotonic() - self._begun) * (1 - share) / share
            figures += f", {duration(left)} left"
        self.bars[-1].percent, self.bars[-1].text = 100 * share, f"{figures} ({what})"
        if self._round is not None:
            self._round.percent = 100 * self._place / len(STAGES)
            self._round.text = f"{self._stage}, {self._place + 1} of {len(STAGES)} stages: {figures} ({what})"


def _units(done: int, total: int) -> str:
    return f"{done} of {total} {'unit' if total == 1 else 'units'}"
