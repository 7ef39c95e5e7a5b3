"""What a store holds beside its committed work, by name: summaries, records, logs; and its locks."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from data.store.backend import Backend


class Documents:
    """Files of a store that are not named by their content.

    Attributes:
        backend: where they lie.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    @property
    def url(self) -> str:
        """The store's name: what `--store` opens it by."""
        return self.backend.url

    def where(self, relative: str) -> str:
        """The name of something in the store for people: an absolute path, a URL. Raises as `path`."""
        return self.backend.where(relative)

    def write_file(self, relative: str, data: bytes) -> None:
        """Write or replace a file that is not content-addressed (a round's summary), in one step.

        Raises StoreError: the path leaves the store, the disk is full, or the store is read-only.
        """
        self.backend.put(relative, data)

    def read_file(self, relative: str) -> bytes:
        """What `write_file` wrote last.

        Raises:
            OSError: it is not there, or cannot be read.
            StoreError: the path leaves the store, or the store cannot be asked.
        """
        return self.backend.read(relative)

    def has(self, relative: str) -> bool:
        """Whether a file of this name is in the store. Raises StoreError as `read_file`."""
        try:
            return self.backend.size(relative) >= 0
        except OSError:
            return False

    def find(self, pattern: str) -> list[str]:
        """Paths below the store's root that match, sorted name by name; "*" stands for any part of a name."""
        # Not as texts: "-" comes before "/", and of two rounds the longer name before the shorter.
        return sorted(self.backend.find(pattern), key=lambda path: path.split("/"))

    def local(self, relative: str) -> Path:
        """A file of this machine that holds the same bytes, to be read only. Raises as `read_file`.

        It is the file itself where the store is a folder, else a copy, kept in a cache if its name is that of
        its content.
        """
        return self.backend.local(relative)

    def log_run(self, run_id: str, event: Mapping[str, Any]) -> None:
        """Append a fact about a run (seconds, cached, ...) to `runs/<run id>.jsonl`, outside every digest.

        The time (UTC), host and process id are added here.
        """
        facts = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }
        line = json.dumps(facts | dict(event), allow_nan=False) + "\n"
        self.backend.append(f"runs/{run_id}.jsonl", line)

    def run_logs(self) -> Iterator[tuple[str, str]]:
        """Run id and lines of what `log_run` wrote, sorted by id; what cannot be read is left out."""
        for path in self.find("runs/*.jsonl"):
            with contextlib.suppress(OSError):
                yield PurePosixPath(path).stem.split(".")[0], self.read_file(path).decode(errors="replace")

    def lock(self, name: str, wait: bool = True) -> AbstractContextManager[None]:
        """Hold the lock of this name against every other process; a process that dies lets go of it.

        Raises StoreError: another process holds it, and this one does not `wait`; or there are no locks.
        """
        return self.backend.lock(name, wait)
