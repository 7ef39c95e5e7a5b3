"""Faults on the wire to a judge's server: one request of a run, or all from then on, is answered as no server should.

The server is in this process; its answers depend on frames and question alone, so that every judgement can be
compared. A fault meets any request: those by which the client gets to know the server, and those about clips.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import socket
import struct
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Final

import yaml

from rewards.judge.processing import Processing
from rewards.judge.rubric import load_rubric
from rewards.judge.settings import JudgeSettings
from tasks.context import RESIDENTS
from tests.chaos.machine_faults import at_once, values
from tests.chaos.round_jobs import Stage, made, play_stage
from tests.chaos.trial import Bench, Outcome, Trial
from tests.hostile_servers import HOSTILE, Behaviour
from tests.miniature_rewards import JUDGE
from tests.rewards.judge.conftest import RUBRIC
from tests.rewards.judge.fault_server import IMPOSSIBLE, KEY, MODEL, FaultServer

# Of a request: while something is wrong with the server, and while nothing is, however busy the machine.
_SHORT_S: Final = 0.3
_LONG_S: Final = 60.0
Handler = BaseHTTPRequestHandler
# What is done with a request in place of the answer (handler, status, body) that it would get.
Fault = Callable[[Any, int, bytes], None]


def _status(status: int) -> Fault:
    def answer(handler: Any, _: int, body: bytes) -> None:
        handler.plain(status, b'{"error": "told to fail"}')

    return answer


def _says(change: Callable[[bytes], bytes]) -> Fault:
    """Another body, with the length that it has."""
    return lambda handler, status, body: handler.plain(status, change(body))


def _half(handler: Any, status: int, body: bytes) -> None:
    """Half of what was promised, and then the end."""
    handler.promise(status, len(body))
    handler.wfile.write(body[: len(body) // 2])


def _reset(handler: Any, status: int, body: bytes) -> None:
    """Half of it, and then a reset."""
    _half(handler, status, body)
    handler.wfile.flush()
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def _hangs(handler: Any, status: int, body: bytes) -> None:
    handler.rfile.read(1)  # until the client hangs up


def _hangs_in_the_middle(handler: Any, status: int, body: bytes) -> None:
    _half(handler, status, body)
    handler.wfile.flush()
    handler.rfile.read(1)


def _away(handler: Any, status: int, body: bytes) -> None:
    """The server is gone: whoever comes is refused, until it is there again."""
    handler.gone()


def _behaves(behaviour: Behaviour) -> Fault:
    return lambda handler, status, body: behaviour(handler.connection)


def _answers(edit: Callable[[dict[str, Any]], None]) -> Fault:
    """Log-probabilities that cannot be; what is no answer about a clip stays as it is."""

    def change(body: bytes) -> bytes:
        said = json.loads(body)
        if isinstance(said, dict) and said.get("choices"):
            edit(said)
        return json.dumps(said).encode()

    return _says(change)


FAULTS: Final[dict[str, Fault]] = {
    "refused": _away,
    "reset": _reset,
    "half an answer": _half,
    "hangs": _hangs,
    "hangs in the middle": _hangs_in_the_middle,
    **{str(status): _status(status) for status in (429, 500, 502, 503, 504)},
    "JSON cut short": _says(lambda body: body[: len(body) // 2]),
    "no JSON": _says(lambda body: b"<html>it works</html>"),
    "an empty object": _says(lambda body: b"{}"),
    "a list": _says(lambda body: b"[" + body + b"]"),
    "null": _says(lambda body: b"null"),
    "deep JSON": _says(lambda body: b"[" * 100_000),
    "not UTF-8": _says(lambda body: b"\xff" + body),
    **{name: _behaves(behaviour) for name, (behaviour, _) in HOSTILE.items() if behaviour is not HOSTILE["nothing"][0]},
    **{f"says {name}": _answers(edit) for name, edit in IMPOSSIBLE.items()},
}  # fmt: skip


class WireServer(FaultServer):
    """The fault server, whose requests are counted; `fault` is done with those that `meets` names."""

    def __init__(self, processing: Processing, together: bool) -> None:
        self.count = 0
        self.fault: Fault | None = None
        self.meets: Callable[[int], bool] = lambda place: False
        super().__init__(processing, together)
        self.__enter__()

    def begin(self, fault: Fault | None = None, meets: Callable[[int], bool] = lambda place: False) -> None:
        """Be there, as if just started, and do so with what comes."""
        if self.http.socket.fileno() < 0:
            self.http = type(self.http)(self.http.server_address, self._handler())  # type: ignore[arg-type]
            self.http.daemon_threads = True
            self.__enter__()
        self.seen.clear()
        self.count, self.fault, self.meets = 0, fault, meets

    def _handler(self) -> type[Handler]:
        server, plain = self, super()._handler()

        class Wire(plain):  # type: ignore[valid-type, misc]
            def send(self, status: int, content: bytes) -> None:
                with server.lock:
                    place, server.count = server.count, server.count + 1
                if server.fault is None or not server.meets(place):
                    super().send(status, content)
                    return
                self.close_connection = True
                with contextlib.suppress(OSError, ValueError):  # the client has hung up, as it should
                    server.fault(self, status, content)

            def plain(self, status: int, content: bytes) -> None:
                super().send(status, content)

            def promise(self, status: int, length: int) -> None:
                self.send_response(status)
                self.send_header("content-length", str(length))
                self.end_headers()

            def gone(self) -> None:
                server.http.shutdown()
                server.http.server_close()

        return Wire


class Judged(Stage):
    """The score stage of a round whose judge is asked over the wire."""

    def __init__(self, together: bool) -> None:
        super().__init__("score")
        self.together = together
        self.name = f"wire: questions {'together' if together else 'alone'}"  # type: ignore[misc]

    def ready(self) -> None:
        folder = made()
        rubric = folder / "rubric.yaml"
        rubric.write_text(yaml.safe_dump(RUBRIC))
        model = JudgeSettings(**JUDGE).model
        self.server = WireServer(Processing(model, "", load_rubric(str(rubric))), self.together)
        os.environ["VIDLOOP_JUDGE_KEY"] = KEY
        said = {
            "backend": "vllm", "model": model, "rubric": rubric, "url": self.server.url, "served_name": MODEL,
            "retries": 1, "concurrency": 1, "breaker": 3,
        }  # fmt: skip
        self.changes = (
            "rewards=[sharpness, judge]",
            *(f"judge.{key}={value}" for key, value in said.items()),
        )

    def before(self, root: Path) -> None:
        Stage("score").before(root)

    def run(self, root: Path) -> None:
        RESIDENTS.release()  # as a new process: it knows no server yet
        patience = _LONG_S if self.server.fault is None else _SHORT_S
        waits = (f"judge.timeout_s={patience}", f"judge.start_timeout_s={patience}")
        with at_once():
            play_stage("score", root, made() / "tiny.yaml", *self.changes, *waits)


class WireBench(Bench):
    """The stage on the bench, whose server fails instead of its files."""

    def __init__(self, job: Judged, folder: Path, seed: int = 0) -> None:
        self.judged = job
        super().__init__(job, folder, seed)

    def remember(self, root: Path) -> None:
        self.values = values(root)
        self.requests = self.judged.server.count

    def trials(self) -> list[Trial]:
        """Every fault at every request; once, or from then on."""
        found = [
            Trial(f"wire, {_kind(fault)}", f"{fault}|{place} {mode}")
            for fault in FAULTS
            for place in range(self.requests)
            for mode in ("once", "dead")
        ]
        random.Random(f"{self.seed}/{self.job.name}").shuffle(found)
        return found

    def _attempt(self, trial: Trial) -> Outcome:
        self._number += 1
        root = self.folder / f"trial-{self._number}"
        self.job.before(root)
        fault, _, at = trial.place.partition("|")
        place, mode = at.split()
        server = self.judged.server
        meets: Callable[[int], bool] = (int(place)).__eq__ if mode == "once" else (int(place)).__le__
        try:
            server.begin(FAULTS[fault], meets)
            ended = self._do(lambda: self.job.run(root))
            if ended.how == "hangs":
                return Outcome("stuck", "the disturbed command does not end")
            if ended.how == "raised":
                return Outcome("wordless", ended.said)
            # An unanswered question below the breaker's limit is null, with its reason, until it is asked again.
            false = {
                one: value for one, value in values(root).items() if value not in (None, self.values[one])
            }
            if false:
                return Outcome("changed", f"became a value: {false}")
            server.begin()
            return self._after(root, trial)
        finally:
            server.begin()
            shutil.rmtree(root, ignore_errors=True)


def _kind(fault: str) -> str:
    """Of the table: the many ways to answer wrongly are one."""
    if fault in HOSTILE:
        return "no sensible HTTP"
    return "impossible answer" if fault.startswith("says ") else fault


JOBS: Final = (Judged(False), Judged(True))
