"""A Postgres of the tests' own: Debian's binaries, a temporary folder, loopback, a password."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.containers import postgres_binaries
from tests.served import free_port


@contextmanager
def postgres() -> Iterator[str]:
    """The address of a new, empty database, as Prefect's server takes it; skips where no Postgres is installed."""
    binaries = postgres_binaries()
    if binaries is None:
        pytest.skip("no Postgres is installed (apt-get install postgresql)")
    # It refuses to run as root; Debian's package brings a user for it.
    user = pwd.getpwnam("postgres") if os.getuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="vidloop-postgres-"))
    data, port, password = folder / "data", free_port(), secrets.token_hex(24)
    (folder / "password").write_text(password)
    if user is not None:
        for path in (folder, folder / "password"):
            os.chown(path, user.pw_uid, user.pw_gid)

    def command(program: str, *arguments: str) -> list[str]:
        drop = (
            ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"] if user else []
        )
        return [*drop, str(binaries / program), *arguments]

    environment = {**os.environ, "PGPASSWORD": password}
    reach = ["--host=127.0.0.1", f"--port={port}", "--username=vidloop"]
    try:
        made = ["--username=vidloop", "--auth=scram-sha-256", f"--pwfile={folder / 'password'}", "--no-sync"]
        subprocess.run(
            command("initdb", f"--pgdata={data}", *made), cwd=folder, check=True, capture_output=True
        )
        with open(folder / "log", "wb") as log:
            process = subprocess.Popen(
                command("postgres", "-D", str(data), "-h", "127.0.0.1", "-p", str(port), "-k", str(folder)),
                cwd=folder, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            while subprocess.run(command("pg_isready", "--quiet", *reach), cwd=folder).returncode:
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.1)
            create = command("createdb", *reach, "prefect")
            subprocess.run(create, cwd=folder, env=environment, check=True, capture_output=True)
            yield f"postgresql+asyncpg://vidloop:{password}@127.0.0.1:{port}/prefect"
        finally:
            process.send_signal(signal.SIGINT)  # ends open connections too
            process.wait(60)
    finally:
        shutil.rmtree(folder)
