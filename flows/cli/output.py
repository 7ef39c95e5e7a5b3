"""Standard output and standard error as a command of ours writes to them: neither can end it.

Who reads may leave (`vidloop plan | head -1`), the disk behind them may be full, their encoding may lack a
character. A command is there for what it does, so it does that to its end, and its exit code says how that
went; only what was not shown for want of space is told at the end.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any, Final, TextIO

# What is written to a stream that failed goes here.
_NOWHERE: Final = os.devnull


class _Lasting(io.FileIO):
    """A descriptor to write to, which leads nowhere once nothing can be written to it.

    Attributes:
        failure: what the system said, unless it was that nobody reads any more.
    """

    failure: str | None = None

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            pass  # whoever read has read enough
        except OSError as error:
            self.failure = error.strerror
        nowhere = os.open(_NOWHERE, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        return len(memoryview(data).cast("B"))


def keep_writable() -> None:
    """Put streams that do not fail in the place of sys.stdout and sys.stderr. To be called once, first."""
    sys.stdout, sys.stderr = _lasting(sys.stdout), _lasting(sys.stderr)


def not_shown() -> str | None:
    """Why part of what was printed is lost, in the system's words; None if nothing is that was wanted."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.failure if isinstance(raw, _Lasting) else None


def _lasting(stream: TextIO | None) -> TextIO:
    if stream is None:  # it was closed before we began
        return open(_NOWHERE, "w", encoding="utf-8")
    stream.flush()
    raw = _Lasting(stream.fileno(), "w", closefd=False)
    buffered = stream.line_buffering if isinstance(stream, io.TextIOWrapper) else False
    # What an encoding lacks is written as \\u2212: told, and no reason to fail.
    return io.TextIOWrapper(
        io.BufferedWriter(raw), stream.encoding, "backslashreplace", newline="\n", line_buffering=buffered
    )
