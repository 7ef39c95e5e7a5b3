"""Progress in the UI while a stage runs: a bar for each list of units, and one for the round.

The units only note how far they are. A thread of its own sends it, at most once in `EVERY_S` seconds: no unit
ever waits for the server, and a server that is away for a while misses a few steps, nothing else.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from flows.artifacts import server
from flows.telling import duration
from tasks.stages import STAGES
from tasks.units import Listener, Unit

EVERY_S: Final = 5.0
"""Seconds between two updates of a bar."""
PATIENCE_S: Final = 10.0
"""Seconds that the end of a stage waits for its last update."""


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
    lock: threading.Lock = field(default_factory=threading.Lock)

    def send(self) -> None:
        """Tell the server, if there is news. Raises what Prefect's client raises."""
        # Of two senders the later waits for the earlier: one artifact, and the last word is the last.
        with self.lock:
            news = (self.percent, self.text)
            if news != self.sent:
                self.artifact = server.progress(self.key, *news, self.artifact, self.run)
                self.sent = news


# Bars of the rounds that this process plays, by round id: their stages move them.
_rounds: dict[str, Bar] = {}


@contextmanager
def of_round(round_id: str) -> Iterator[None]:
    """While the block runs, the stages of a round move a bar in the flow run at work."""
    if not server.seen():
        yield
        return
    bar = Bar("progress-round", server.own_run(), text=f"round {round_id} begins")
    _rounds[round_id] = bar
    try:
        yield
        bar.percent, bar.text = 100.0, f"all {len(STAGES)} stages done"
    except BaseException:
        bar.text = f"ended early: {bar.text}"
        raise
    finally:
        del _rounds[round_id]
        _send_in_time(bar)


@contextmanager
def of_stage(stage: str, round_id: str, listener: Listener, every_s: float = EVERY_S) -> Iterator[Listener]:
    """A listener that tells `listener` and the UI. The flow run at work is that of the stage.

    Args:
        stage: which of the five.
        round_id: of the round that it is part of; its bar, if this process has one, moves too.
        listener: hears everything as if this were not here.
        every_s: seconds between two updates.
    """
    if not server.seen():
        yield listener
        return
    bars = Bars(stage, listener, _rounds.get(round_id))
    stop = threading.Event()
    sender = threading.Thread(
        # In a copy of this thread's context: by it Prefect knows the flow run.
        target=contextvars.copy_context().run,
        args=(_keep_sending, bars, stop, every_s),
        name=f"progress of {stage}",
        daemon=True,
    )
    sender.start()
    try:
        yield bars
    finally:
        stop.set()
        sender.join(PATIENCE_S)


class Bars:
    """A listener that turns what it hears into bars: one for each list of units, and the round's."""

    def __init__(self, stage: str, listener: Listener, round_bar: Bar | None) -> None:
        self.bars: list[Bar] = []
        self._listener, self._round = listener, round_bar
        self._place = list(STAGES).index(stage)
        self._stage, self._begun = stage, 0.0
        self._total = self._done = self._cached = 0
        self._lock = threading.Lock()
        if round_bar is not None:
            self.bars.append(round_bar)

    def begins(self, stage: str, task: str, total: int) -> None:
        """See `Listener`."""
        self._listener.begins(stage, task, total)
        with self._lock:
            self._total, self._done, self._cached = total, 0, 0
            self._begun = time.monotonic()
            self.bars.append(Bar(f"progress-{stage}"))
            self._tell(0.0, _units(0, total), task)

    def unit(self, stage: str, unit: Unit, cached: bool, seconds: float) -> None:
        """See `Listener`."""
        self._listener.unit(stage, unit, cached, seconds)
        with self._lock:
            self._done += 1
            self._cached += cached
            computed = self._done - self._cached
            kept = f"{unit.task}, {self._cached} from the cache" if self._cached else unit.task
            self._tell(self._done / self._total, _units(self._done, self._total), kept, computed)

    def steps(self, stage: str, unit: Unit, done: int, total: int) -> None:
        """See `Listener`."""
        self._listener.steps(stage, unit, done, total)
        with self._lock:
            share = (self._done + done / total) / self._total
            self._tell(share, f"{done} of {total} steps", unit.label, done)

    def ends(self, stage: str, task: str) -> None:
        """See `Listener`."""
        self._listener.ends(stage, task)

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


def _keep_sending(bars: Bars, stop: threading.Event, every_s: float) -> None:
    said = False
    while True:
        # A short stage is told of once, at its end.
        stopped = stop.wait(every_s)
        for bar in list(bars.bars):
            try:
                bar.send()
            except Exception as error:  # tried again with the next news, and said once
                if not said:
                    server.complain(f"the progress of {bar.key.removeprefix('progress-')}", error)
                said = True
        if stopped:
            return


def _send_in_time(bar: Bar) -> None:
    """The last news of a bar; a server that does not answer is not waited for."""
    send = contextvars.copy_context().run
    sender = threading.Thread(target=send, args=(server.attempt, "the progress of the round", bar.send))
    sender.daemon = True
    sender.start()
    sender.join(PATIENCE_S)
