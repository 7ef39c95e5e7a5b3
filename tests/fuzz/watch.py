"""What is wrong with how a parser took an input: an exception that nobody foresaw, time, memory."""

from __future__ import annotations

import resource
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.target import Target

SECONDS = 1.0
"""Processor time that an input may take, all threads together."""
MEGABYTES = 500
"""Memory that may be resident above what the process had when it was warm."""
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Finding:
    """An input that a parser did not take as it should.

    Attributes:
        kind: the exception's class, "time" or "memory".
        where: the line that raised it, the innermost of ours: by kind and line findings are told apart.
        text: traceback, or figure.
    """

    kind: str
    where: str
    text: str


class Watch:
    """Gives inputs to a target and keeps count.

    Attributes:
        inputs: so many so far.
        slowest: seconds of the slowest.
        peak: most megabytes above those at `warm`.
        longest: bytes of the longest input.
    """

    def __init__(self, target: Target) -> None:
        self.inputs = 0
        self.slowest = 0.0
        self.peak = 0.0
        self.longest = 0
        self._target = target
        self.warm()

    def warm(self) -> None:
        """What is resident now is the process's own: its libraries, and what they remember."""
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        self._base = _peak_mb()

    def give(self, data: bytes) -> Finding | None:
        """What is wrong with how the target takes `data`; None: nothing."""
        self.inputs += 1
        self.longest = max(self.longest, len(data))
        found = None
        began = time.process_time()
        try:
            self._target.read(data)
        except self._target.refusals:
            pass
        except Exception as error:  # whatever it is, it is what we look for
            found = _told(error)
        seconds = time.process_time() - began
        above = _peak_mb() - self._base
        self.slowest, self.peak = max(self.slowest, seconds), max(self.peak, above)
        if above > MEGABYTES:
            self.warm()
            return Finding("memory", "", f"{above:.0f} MB above the process's own")
        if seconds > SECONDS:
            return Finding("time", "", f"{seconds:.2f} s of processor time")
        return found


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _told(error: Exception) -> Finding:
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename.startswith(str(_ROOT)) and "/tests/" not in frame.filename
    ]
    innermost = frames[-1] if frames else traceback.extract_tb(error.__traceback__)[-1]
    file = Path(innermost.filename)
    where = f"{file.relative_to(_ROOT) if file.is_relative_to(_ROOT) else file.name}:{innermost.lineno}"
    text = "".join(traceback.format_exception(error))
    return Finding(
        type(error).__name__, where, text if len(text) < 6000 else f"{text[:3000]}\n...\n{text[-3000:]}"
    )
