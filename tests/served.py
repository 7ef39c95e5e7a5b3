"""`vidloop serve` as a user starts it: in a process of its own, with a folder, a store and a recipe of the test's."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import yaml

from data import device_lock
from data.processes import descendants
from flows.serving.api_client import Refused, ask
from flows.serving.server_config import POOL, ServerConfig, read_auth
from tests.tiny_round import HELDOUT, ROOT, TRAIN, Tiny, tiny_settings, write_prompts

Found = TypeVar("Found")
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
# Patience for what takes seconds on an idle machine; what has a promised time states it where it is tested.
PATIENCE_S = 900.0


def wait_for(what: str, look: Callable[[], Found | None], limit_s: float = PATIENCE_S) -> Found:
    """What `look` finds, as soon as it finds something."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.25)
    raise AssertionError(f"no {what} within {limit_s:.0f} s")


@dataclass
class Served:
    """A running `vidloop serve`."""

    process: subprocess.Popen[str]
    config: ServerConfig
    tiny: Tiny
    locks: Path
    said: Path
    database: str = ""
    """Address of the Postgres that the server was given; empty: SQLite, in its folder."""

    def execute(self, statement: str) -> None:
        """Run an SQL statement in the server's database, behind its back."""
        if not self.database:
            with sqlite3.connect(f"{self.config.folder}/prefect/prefect.db", timeout=60) as file:
                file.execute(statement)
            return

        async def run() -> None:
            database = await asyncpg.connect(self.database.replace("+asyncpg", ""))
            try:
                await database.execute(statement)
            finally:
                await database.close()

        asyncio.run(run())

    @property
    def auth(self) -> str:
        return read_auth(self.config.auth_file)

    def ask(self, path: str, body: Any = None) -> Any:
        return ask(self.config.api, path, self.auth, timeout_s=120, body=body)

    def run(self, deployment: str, **parameters: Any) -> str:
        """Send the form of a deployment; the run's id. Raises Refused if the server does not take it."""
        (held,) = self.ask("/deployments/filter", {"deployments": {"name": {"any_": [deployment]}}})
        body = {"parameters": {"recipe": str(self.tiny.recipe), **parameters}, "state": {"type": "SCHEDULED"}}
        path = f"/deployments/{held['id']}/create_flow_run"

        def send() -> str | None:
            try:
                return str(self.ask(path, body)["id"])
            except Refused as refused:
                if refused.status != 503:  # the server is busy, and says so
                    raise
                return None

        return wait_for("run", send)

    def about(self, run: str) -> dict[str, Any]:
        """A flow run as the API shows it; what a busy server does not say now, it says later."""
        while True:
            try:
                found: dict[str, Any] = self.ask(f"/flow_runs/{run}")
                return found
            except (OSError, ValueError, Refused):
                assert self.process.poll() is None
                time.sleep(0.5)

    def state(self, run: str) -> str:
        return str(self.about(run)["state_type"])

    def until(self, run: str, *states: str, limit_s: float = PATIENCE_S) -> dict[str, Any]:
        """Wait until the run is in one of `states`."""

        def look() -> dict[str, Any] | None:
            found = self.about(run)
            return found if found["state_type"] in states else None

        try:
            return wait_for(f"run in {states}", look, limit_s)
        except AssertionError as error:
            raise AssertionError(f"{error}: it is {self.about(run)['state']}; log: {self.log(run)}") from None

    def log(self, run: str) -> list[str]:
        """What the run said, oldest first."""
        wanted = {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC", "limit": 200}
        lines: list[str] = []
        while page := self.ask("/logs/filter", {**wanted, "offset": len(lines)}):
            lines += [line["message"] for line in page]
        return lines

    def set_slots(self, slots: int) -> None:
        """The pool's limit."""
        done = subprocess.run(
            [sys.executable, "-m", "prefect", "work-pool", "set-concurrency-limit", POOL, str(slots)],
            env=self.config.client_environment(self.auth), capture_output=True, text=True, timeout=PATIENCE_S,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def processes(self) -> dict[int, str]:
        """Command lines of everything below `vidloop serve`."""
        found = {}
        for pid in descendants(self.process.pid):
            try:
                found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
        return found

    def pid(self, *words: str) -> int:
        """The one process whose command line has all of `words`."""
        (pid,) = [pid for pid, line in self.processes().items() if all(word in line for word in words)]
        return pid

    def flow_process(self, run: str) -> int:
        """The process that plays a flow run."""

        def look() -> int | None:
            for pid in descendants(self.process.pid):
                try:
                    environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                except OSError:
                    continue
                if f"PREFECT__FLOW_RUN_ID={run}".encode() in environment:
                    return pid
            return None

        return wait_for("process of the run", look)

    def has_generated(self, store: Path | None = None) -> None:
        """Wait for the first shard."""
        folder = (store or self.tiny.store) / "manifests" / "generate"
        wait_for("shard", lambda: folder.is_dir() and any(folder.glob("*.json")))

    def free(self, device: str) -> bool:
        """Whether nobody holds a device."""
        before = os.environ.get(device_lock.FOLDER)
        os.environ[device_lock.FOLDER] = str(self.locks)
        try:
            return device_lock.holder(device) is None
        finally:
            if before is None:
                del os.environ[device_lock.FOLDER]
            else:
                os.environ[device_lock.FOLDER] = before


def alive(pids: Iterable[int]) -> list[int]:
    """Those that still run; what only waits for init to take its exit code does not."""
    found = []
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z":
            found.append(pid)
    return found


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def serving(
    folder: Path,
    model: Path,
    *more: str,
    devices: tuple[str, ...] = ("cpu",),
    changes: Callable[[dict[str, Any]], None] = lambda recipe: None,
) -> Iterator[Served]:
    """Serve in `folder`, with a recipe that `changes` may edit, until the block ends; then nothing may be left."""
    recipes = folder / "recipes"
    recipes.mkdir(parents=True)
    write_prompts(recipes / "train.jsonl", TRAIN)
    write_prompts(recipes / "heldout.jsonl", HELDOUT)
    recipe = tiny_settings(model, recipes)
    changes(recipe)
    (recipes / "tiny.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    tiny = Tiny(recipes, folder / "store")
    locks = folder / "locks"
    said = folder / "said.txt"
    arguments = ["--folder", str(folder / "serve"), "--store", str(tiny.store), "--port", str(free_port())]
    chosen = [word for device in devices for word in ("--device", device)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    with ExitStack() as until_the_end:
        database = until_the_end.enter_context(_database())
        output = until_the_end.enter_context(open(said, "w"))
        process = subprocess.Popen(
            [sys.executable, "-m", "flows", "serve", *arguments, *chosen, "--recipes", str(recipes), *more],
            cwd=folder, env={**clean, **database, "PYTHONPATH": str(ROOT), device_lock.FOLDER: str(locks)},
            stdout=output, stderr=output, text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        until_the_end.callback(_end, process)

        def ready() -> ServerConfig | None:
            assert process.poll() is None, said.read_text()
            return ServerConfig.load(folder / "serve") if "Prefect UI:" in said.read_text() else None

        config = wait_for("Prefect UI", ready)
        # The database is where the tests say, and nowhere else.
        assert (folder / "serve" / "prefect" / "prefect.db").exists() == (not database)
        yield Served(process, config, tiny, locks, said, *database.values())


@contextmanager
def _database() -> Iterator[dict[str, str]]:
    """What `vidloop serve` is told of its database: nothing for SQLite, or where a Postgres of the test's own is."""
    named = os.environ.get("VIDLOOP_TEST_DATABASE", "sqlite")
    if named == "postgres":
        from tests.postgres import postgres

        with postgres() as address:
            yield {"PREFECT_API_DATABASE_CONNECTION_URL": address}
    else:
        assert named == "sqlite", f"VIDLOOP_TEST_DATABASE={named}: say sqlite or postgres"
        yield {}


def _end(process: subprocess.Popen[str]) -> None:
    """Ctrl-C; then nothing may be left."""
    if process.poll() is None:
        left = descendants(process.pid)
        process.send_signal(signal.SIGINT)
        process.wait(120)
        assert not alive(left)
        assert process.returncode == 0


def parts_are_whole(store: Path) -> None:
    """Every manifest's files are there with the bytes it promises, and nothing else is under media or parts."""
    from data.store import Store

    opened = Store.open(store)
    for manifest in opened.manifests():
        assert opened.verify(manifest.key, "hash") is None


def manifests(store: Path) -> int:
    return len(list((store / "manifests").glob("*/*.json")))


def newest_summary(store: Path) -> dict[str, Any]:
    path = max((store / "rounds").glob("*/summary.json"), key=lambda one: one.stat().st_mtime_ns)
    found: dict[str, Any] = json.loads(path.read_text())
    return found
