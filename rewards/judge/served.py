"""Backend `vllm`: any OpenAI-compatible server, one that is running or one that the run starts.

Clips go side by side, a clip's questions together in one request where the server takes them so, else one
after the other. The first question brings the frames along and fills the server's caches (rubric and media
stand first in the prompt), the others name the frames by id.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from data.errors import UserError
from rewards.judge.answers import Ask, Fault, NoAnswer, Refused, Reply, Unanswered
from rewards.judge.asking import Requests, self_test
from rewards.judge.processing import Processing
from rewards.judge.rubric import Rubric
from rewards.judge.server import ManagedServer, on_cpu
from rewards.judge.settings import JudgeSettings, model_path, server_key
from rewards.judge.transport import Http

log = logging.getLogger("rewards.judge")


@dataclass
class _Breaker:
    """Counts unanswered questions in a row; so many, and the judge counts as down."""

    limit: int
    row: int = 0
    reason: str | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, fault: str | None) -> None:
        with self.lock:
            self.row = 0 if fault is None else self.row + 1
            if self.row >= self.limit and self.reason is None:
                self.reason = f"{self.row} questions in a row were not answered. Last: {fault}"

    def reset(self) -> None:
        with self.lock:
            self.row, self.reason = 0, None


class VllmBackend:
    """See the module's docstring. The server is reached, or started, at the first question."""

    def __init__(self, settings: JudgeSettings, rubric: Rubric) -> None:
        self._settings = settings
        self._rubric = rubric
        self._lock = threading.Lock()
        self._server: ManagedServer | None = None
        self._requests: Requests | None = None  # to a server that passed the self-test
        self._about: dict[str, str] = {}
        self._breaker = _Breaker(settings.breaker)

    @property
    def identity(self) -> dict[str, str]:
        """Who answers, to be kept with each answer; of the server only what it said of itself."""
        return {"backend": "vllm", **self._about}

    @property
    def network(self) -> str | None:
        """Who computes and how, as far as that is known, and not where; None: nobody was asked yet."""
        settings = self._settings
        if not self._about:
            return None
        who = f"{settings.served_name or settings.model}, {self._about['library']}"
        if settings.address:
            return f"{who}, at judge.url, which does not say how it computes"
        more = ", and as judge.server_args say" if settings.server_args else ""
        where = "the CPU" if on_cpu() else "a GPU"
        return f"{who}, the run's own server on {where} in {settings.dtype}, not compiled{more}"

    @property
    def down(self) -> str | None:
        """Why nobody is answered any more, or None."""
        return self._breaker.reason

    def ask(self, asks: Sequence[Ask]) -> list[Reply]:
        """One reply for each question, in order.

        Raises:
            ServiceError: the model, the server or its environment is not what the settings promise.
        """
        if not asks:
            return []
        # Whoever asks again after an outage gets a new chance, if need be with a new server.
        outage = self._breaker.reason is not None
        if outage:
            self._breaker.reset()
        requests = self._ready(asks[0], outage)
        series = [list(some) for _, some in groupby(asks, key=lambda ask: (id(ask.segment), ask.sees))]
        pool = ThreadPoolExecutor(self._settings.concurrency, thread_name_prefix="judge")
        try:
            replies = list(pool.map(lambda some: self._series(requests, some), series))
        except KeyboardInterrupt:
            # A request under way to a server that hangs would hold up the end of the process: end the server.
            self.close()
            raise
        finally:
            # After Ctrl-C nothing new is asked, and nobody waits for what is under way.
            pool.shutdown(wait=False, cancel_futures=True)
        return [reply for some in replies for reply in some]

    def prepare(self) -> None:
        """Start the server, if it is ours and early starts are allowed; `ask` waits for it."""
        if self._settings.address or not self._settings.early_start or not on_cpu():
            return
        with self._lock:
            if self._server is None:
                self._server = ManagedServer(self._settings)

    def close(self) -> None:
        """Close the connections and end the server if it is ours."""
        with self._lock:
            requests, self._requests = self._requests, None
            server, self._server = self._server, None
        if requests is not None:
            requests.http.close()
        if server is not None:
            server.stop()

    def _series(self, requests: Requests, asks: Sequence[Ask]) -> list[Reply]:
        """The questions about one segment, in order."""
        if len(asks) > 1 and requests.together and self._breaker.reason is None:
            together = self._together(requests, asks)
            if together is not None:
                return together
        replies, known = [], False
        for ask in asks:
            reply = self._one(requests, ask, known)
            known = known or reply.error is None
            replies.append(reply)
        return replies

    def _together(self, requests: Requests, asks: Sequence[Ask]) -> list[Reply] | None:
        """The replies to one request; None where it did not work out, and each is to be asked alone."""
        try:
            answers = requests.ask_together(asks)
        except (Refused, Fault):
            return None
        self._breaker.note(None)
        return [
            Reply(None, str(answer), False)
            if isinstance(answer, NoAnswer)
            else Reply(answer[0], tokens=answer[1])
            for answer in answers
        ]

    def _one(self, requests: Requests, ask: Ask, known: bool) -> Reply:
        down = self._breaker.reason
        if down is not None:
            return Reply(None, f"not asked: {down}", True)
        try:
            found, tokens = requests.ask(ask, known)
        except Unanswered as error:
            self._breaker.note(str(error) if error.again else None)
            return Reply(None, str(error), error.again)
        self._breaker.note(None)
        return Reply(found, tokens=tokens)

    def _ready(self, first: Ask, outage: bool) -> Requests:
        """The server, started and tested if that has not happened yet, or if it has ended or hangs."""
        with self._lock:
            server = self._server
            if server is not None and not (server.answers() if outage else server.alive):
                log.warning("the judge's server is down and is started again; its log: %s", server.log)
                server.stop(keep_log=True)
                self._server = self._requests = None
            if self._requests is None:
                self._requests = self._connect(first)
            return self._requests

    def _connect(self, first: Ask) -> Requests:
        settings = self._settings
        processing = self._processing()
        if settings.address:
            url, key = settings.address, server_key(settings)
        else:
            if self._server is None:
                self._server = ManagedServer(settings)
            try:
                self._server.wait()
            except BaseException:
                self._server = None
                raise
            url, key = self._server.url, self._server.key
        http = Http(url, key, settings.timeout_s, settings.retries, settings.concurrency, settings.ca_file)
        try:
            requests = Requests(http, settings, self._rubric, processing)
            self._about = self_test(requests, settings, first)
        except BaseException:
            http.close()
            if self._server is not None:
                self._server.stop(keep_log=True)
                self._server = None
            raise
        return requests

    def _processing(self) -> Processing | None:
        """The checkpoint's processor where it lies on this machine: then every prompt's length is known."""
        path = model_path(self._settings)
        if not Path(path).is_dir():
            return None
        try:
            return Processing(path, self._settings.revision, self._rubric)
        except UserError as error:
            log.warning("prompt lengths are not checked: %s", error)
            return None
