"""The pull step of every deployment: a run writes into its worker's log file itself, not through the worker.

Prefect's worker holds the other ends of its runs' output pipes. When it is killed, the next line that a run
prints raises BrokenPipeError, which rich turns into SystemExit: a run Crashed for no fault of its own.
Pull steps run in the process that becomes the run (it keeps its descriptors), before any code of a flow.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Final

# Environment variable that `vidloop serve` gives its workers: their log file.
LOG: Final = "VIDLOOP_WORKER_LOG"
STEP: Final = f"{__name__}.write_to_worker_log"


def write_to_worker_log() -> dict[str, Any]:
    """Turn standard output and error to the file that `VIDLOOP_WORKER_LOG` names. Raises OSError."""
    if name := os.environ.get(LOG):
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        # Lines of the run and of the worker alternate: each is appended whole.
        descriptor = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        for standard in (1, 2):
            os.dup2(descriptor, standard)
        os.close(descriptor)
    return {}
