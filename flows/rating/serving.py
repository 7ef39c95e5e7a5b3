"""The server of a session, until it is told to end."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Callable

import uvicorn

from data.errors import ConfigError
from data.store import Store
from flows.rating import keep
from flows.rating.database import Database
from flows.rating.server import application


def serve(database: Database, store: Store, host: str, port: int, listening: Callable[[str], None]) -> int:
    """Serve a session's page until Ctrl-C or SIGTERM, and bring what was voted into the store.

    Args:
        database: the session.
        store: that holds its clips.
        host, port: to listen on; port 0: any that is free.
        listening: called with the address, such as "http://127.0.0.1:8765", once it takes connections.

    Returns:
        Votes that were brought into the store at the end.

    Raises:
        ConfigError: the address cannot be listened on.
        StoreError: the store cannot be written to; the votes wait in the session's file.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        taken = socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise ConfigError(f"--host {host} --port {port}: {error.strerror}: name another") from None
    everywhere = ipaddress.ip_address(taken.getsockname()[0]).is_unspecified
    named = socket.gethostname() if everywhere else f"[{host}]" if ":" in host else host
    config = uvicorn.Config(
        application(database, store), log_level="warning", access_log=False, server_header=False,
        date_header=False, timeout_graceful_shutdown=5,
    )  # fmt: skip
    # Ctrl-C before the server has taken over the signals ends it as well as any later one.
    with taken, contextlib.suppress(KeyboardInterrupt):
        listening(f"http://{named}:{taken.getsockname()[1]}")
        _Server(config).run([taken])
    return keep.commit(database, store)


class _Server(uvicorn.Server):
    """One that ends as asked, without raising the signal once more: votes are yet to come into the store."""

    def handle_exit(self, sig: int, frame: object) -> None:
        """Stop; asked again, at once."""
        self.force_exit, self.should_exit = self.should_exit, True
