"""A Prefect server for one run, where none is named: it starts while the rest is imported, and dies with us.

Prefect has a temporary server of its own; this is the same application, started so that it ends after
`kill -9` of the run too (it watches a pipe that the kernel closes), and so that its log goes into a file.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path
from typing import Final

from data import processes
from data.errors import ServiceError
from data.resources import python_path
from flows.rounds import prefect_hooks

START_TIMEOUT_S: Final = 120.0
STOP_TIMEOUT_S: Final = 10.0


class TemporaryServer:
    """The server process, from the outside: it starts at once; `wait` returns when it answers.

    Attributes:
        url: where its API is; Prefect's client, not imported yet, is pointed at it.
    """

    def __init__(self, log: Path) -> None:
        # Nobody looks at what ends with the run: neither the server nor the run makes pages for it.
        os.environ["PREFECT_SERVER_UI_ENABLED"] = "false"
        log.parent.mkdir(parents=True, exist_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self._port = listening.getsockname()[1]
            # It is ended after Prefect's own exit handlers, registered later, have told it how the run ended.
            self._process = processes.ServerProcess(
                # -P: a folder `data` or `models` where somebody works is not our package.
                [sys.executable, "-P", "-m", "flows.serving.temporary_server", str(listening.fileno())],
                log,
                {**os.environ, "PYTHONPATH": python_path()},
                pass_fds=[listening.fileno()],
            )
        self.url = os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{self._port}/api"

    def wait(self) -> None:
        """Wait until the server answers.

        Raises:
            ServiceError: it ended, or did not answer in time.
        """
        from data.http_client import answers

        try:
            self._process.wait(lambda: answers(self._port, "/api/health"), START_TIMEOUT_S)
        except (ChildProcessError, TimeoutError):
            self._process.stop(STOP_TIMEOUT_S)
            raise ServiceError(
                f"Prefect's temporary server did not start, see {self._process.log}. --plain does without "
                "Prefect; PREFECT_API_URL names a server that is running"
            ) from None


def serve(descriptor: int) -> None:
    """Be the server on a socket that already listens, until standard input ends."""
    import uvicorn

    prefect_hooks.begin_immediate()
    app = prefect_hooks.temporary_app()
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on"))

    def stop(_: bytes) -> None:
        server.should_exit = True
        time.sleep(STOP_TIMEOUT_S)
        os._exit(1)

    processes.on_parent_exit(stop)
    server.run(sockets=[socket.socket(fileno=descriptor)])


if __name__ == "__main__":
    serve(int(sys.argv[1]))
