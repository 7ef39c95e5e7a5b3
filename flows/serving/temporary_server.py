"""A Prefect server for one run, where none is named: it starts while the rest is imported, and dies with us.

Prefect has a temporary server of its own; this is the same application, started so that it ends after
`kill -9` of the run too (it watches a pipe that the kernel closes), and so that its log goes into a file.
"""

from __future__ import annotations

import atexit
import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Final

from data.errors import ServiceError
from flows.serving.server import write_in_turn

START_TIMEOUT_S: Final = 120.0
STOP_TIMEOUT_S: Final = 10.0


class TemporaryServer:
    """The server process, from the outside. `start` returns at once; `wait` returns when it answers."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """Where its API is."""
        return f"http://127.0.0.1:{self._port}/api"

    def start(self) -> None:
        """Start the process and point Prefect's client, not imported yet, at it."""
        # Nobody looks at what ends with the run: neither the server nor the run makes pages for it.
        os.environ["PREFECT_SERVER_UI_ENABLED"] = "false"
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen(128)
            self._port = listening.getsockname()[1]
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with open(self._log, "wb") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "flows.serving.temporary_server", str(listening.fileno())],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    pass_fds=[listening.fileno()],
                    # Ctrl-C is for the run; the server must live to hear how it ended.
                    start_new_session=True,
                )
        os.environ["PREFECT_API_URL"] = self.url
        # Registered before Prefect's own, and so run after them: they still tell the server something.
        atexit.register(self.stop)

    def wait(self) -> None:
        """Wait until the server answers.

        Raises:
            ServiceError: it ended, or did not answer in time.
        """
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            if self._answers():
                return
            time.sleep(0.05)
        self.stop()
        raise ServiceError(
            f"Prefect's temporary server did not start, see {self._log}. --plain does without Prefect; "
            "PREFECT_API_URL names a server that is running"
        )

    def _answers(self) -> bool:
        client = http.client.HTTPConnection("127.0.0.1", self._port, timeout=2)
        try:
            client.request("GET", "/api/health")
            return client.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            client.close()

    def stop(self) -> None:
        """End the process, gently first."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def serve(descriptor: int) -> None:
    """Be the server on a socket that already listens, until standard input ends."""
    import uvicorn
    from prefect.server.api.server import create_app

    write_in_turn()
    app = create_app(ephemeral=True, final=True)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on"))
    threading.Thread(target=_until_alone, args=(server,), daemon=True).start()
    server.run(sockets=[socket.socket(fileno=descriptor)])


def _until_alone(server: object) -> None:
    """Stop when the pipe from the run is closed, by its end or by the kernel."""
    sys.stdin.buffer.read()
    server.should_exit = True  # type: ignore[attr-defined]  # uvicorn.Server, imported late
    time.sleep(STOP_TIMEOUT_S)
    os._exit(1)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
