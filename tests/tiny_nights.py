"""Nights on a tiny model: settings under which a gate promotes, keeps or finds a broken guard; a webhook."""

from __future__ import annotations

import fcntl
import json
import threading
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from tests.served import Served, wait_for

# Sharpness teaches and is measured: a learning rate that throws the calm model (tests.calm_model) far makes
# it sharper for certain.
PROMOTES: Final = [
    "evaluate.metric=sharpness",
    "evaluate.same_as_feedback=true",
    "evaluate.clips=8",
    "evaluate.guards=[diversity]",
    "gate.limits={diversity: {high: 1000}}",
    "generate.clips_per_prompt=6",
    "finetune.steps=40",
    "finetune.lr=1.0",
    "finetune.rank=8",
    "finetune.alpha=256",
    "finetune.checkpoint_every=40",
    "gate.confidence=0.6",
    # Ten nights that may err once: a yes is confirmed, at half of the gate's level.
    "improve.error=1.0",
    "improve.horizon=10",
]
# The same candidate is sharper because it flickers.
BREAKS_A_GUARD: Final = [*PROMOTES, "evaluate.guards=[flicker]", "gate.limits={flicker: {high: 1.0}}"]
# Physics: an empty world obeys no law, before or after.
KEEPS: Final[list[str]] = []
EVERY_MINUTE: Final = {"cron": "* * * * *", "timezone": "UTC"}


@dataclass
class Webhook:
    """A server that answers as it is told, and keeps what was posted.

    Attributes:
        url: with a secret in it, as such addresses have.
        answers: HTTP codes to give, then 200; 0 hangs until the end of the test.
        got: the JSON objects that were posted, answered with 200 or not.
    """

    url: str
    secret: str
    answers: list[int] = field(default_factory=list)
    got: list[dict[str, Any]] = field(default_factory=list)

    def events(self, flow: str | None = None) -> list[str]:
        return [one["event"] for one in self.got if flow in (None, one["flow"])]


@contextmanager
def webhook() -> Iterator[Webhook]:
    secret = "T0kenThatNobodyMayRead"
    over = threading.Event()

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == f"/hooks/{secret}"
            kept.got.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            code = kept.answers.pop(0) if kept.answers else 200
            if code == 0:
                over.wait(60)
                return
            self.send_response(code)
            if code in (301, 302, 307):
                self.send_header("location", f"http://127.0.0.1:{server.server_port}/elsewhere")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.daemon_threads = True
    kept = Webhook(f"http://127.0.0.1:{server.server_port}/hooks/{secret}", secret)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield kept
    finally:
        over.set()
        server.shutdown()
        server.server_close()


def send(served: Served, method: str, path: str, body: Any) -> Any:
    """What the UI sends when a person changes something."""
    request = urllib.request.Request(
        f"{served.config.api}{path}",
        json.dumps(body).encode(),
        {
            "content-type": "application/json",
            "authorization": f"Basic {b64encode(served.auth.encode()).decode()}",
        },
        method=method,
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        said = answer.read()
    return json.loads(said) if said else None


def deployment(served: Served, name: str = "nightly") -> dict[str, Any]:
    (held,) = served.ask("/deployments/filter", {"deployments": {"name": {"any_": [name]}}})
    found: dict[str, Any] = held
    return found


def fill_in(served: Served, **parameters: Any) -> None:
    """A person edits what the scheduled nights are given."""
    held = deployment(served)
    send(served, "PATCH", f"/deployments/{held['id']}", {"parameters": {**held["parameters"], **parameters}})


def switch(
    served: Served, active: bool, schedule: dict[str, Any] | None = None, name: str = "nightly"
) -> None:
    """A person switches the schedule on or off, and may change it."""
    held = deployment(served, name)
    (one,) = held["schedules"]
    body = {"active": active, **({"schedule": schedule} if schedule else {})}
    send(served, "PATCH", f"/deployments/{held['id']}/schedules/{one['id']}", body)


def nights(served: Served, *states: str) -> list[dict[str, Any]]:
    """Runs of the deployment that the schedule made, in these states, by their time."""
    body = {
        "deployments": {"name": {"any_": ["nightly"]}},
        "flow_runs": {"state": {"type": {"any_": [*states]}}},
        "sort": "EXPECTED_START_TIME_ASC",
        "limit": 200,
    }
    return [run for run in served.ask("/flow_runs/filter", body) if run["auto_scheduled"]]


@contextmanager
def occupied(served: Served, *devices: str) -> Iterator[None]:
    """The devices are somebody else's: a run that needs one waits, and costs nothing."""
    served.locks.mkdir(parents=True, exist_ok=True)
    with ExitStack() as until_the_end:
        for device in devices:
            file = until_the_end.enter_context(open(served.locks / f"{device}.lock", "w"))

            def free(file: Any = file) -> bool:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return False
                return True

            wait_for(f"free {device}", free, 60)
            json.dump({"pid": 0, "what": "a test", "since": "now"}, file)
            file.flush()
        yield


def kept_secret(served: Served, secret: str) -> None:
    """The secret stands in no file of the server or the store, and in no environment of a worker or a run."""
    root = served.tiny.folder.parent
    held = [path for path in root.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert held == []
