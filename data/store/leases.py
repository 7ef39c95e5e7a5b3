"""Locks on object storage: an object that names its holder; one that is not renewed is free.

    locks/<name>.json     {"holder": <id>, "beat": <n>}; holder "": free

Every change replaces exactly what was read (compare-and-swap on the etag), so there is one holder. No clock
of another machine is believed: whoever wants a lock watches it for `TERM_S` by his own clock, and takes it if
it has not changed. A holder that could not renew it for nearly as long knows that it may be lost, and `check`
says so before anything is written that rests on it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator
from typing import Final, Protocol

from data.errors import StoreError
from data.json_text import parse_json

TERM_S: Final = 30.0
_BEAT_S: Final = TERM_S / 6
_LOOK_S: Final = 0.25
log = logging.getLogger("vidloop.store")


class Place(Protocol):
    """What leases are kept in."""

    def read_with_token(self, path: str) -> tuple[bytes, str | None]:
        """Content and token of an object; (b"", None) if there is none."""

    def swap(self, path: str, data: bytes, token: str | None) -> bool:
        """As `data.store.backend.Backend`."""

    def token(self, path: str) -> str | None:
        """As `data.store.backend.Backend`."""

    def where(self, path: str = "") -> str:
        """As `data.store.backend.Backend`."""


class Leases:
    """The locks that this process holds in one place."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._held: dict[str, _Lease] = {}
        # Threads of this process are told apart by these.
        self._turns: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def check(self) -> None:
        """Raise StoreError if a lock that this process holds may be another's by now."""
        for lease in list(self._held.values()):
            if lease.process != os.getpid():  # a fork keeps nothing
                continue
            if time.monotonic() - lease.renewed > TERM_S * 0.8 or lease.lost:
                raise StoreError(
                    f"{self._place.where(path_of(lease.name))}: this process could not keep the lock (the "
                    "service did not answer in time), so another may work in its place: run the same command "
                    "again"
                )

    @contextlib.contextmanager
    def hold(self, name: str, wait: bool) -> Iterator[None]:
        """Hold a lock. Raises StoreError: another holds it, and this process does not `wait`."""
        turn = self._turns[name]
        if not turn.acquire(blocking=wait):
            raise StoreError(_taken(self._place, name))
        try:
            lease = _Lease(self._place, name)
            lease.take(wait)
            self._held[name] = lease
            try:
                yield
            finally:
                del self._held[name]
                lease.leave()
        finally:
            turn.release()

    def is_taken(self, name: str) -> bool:
        """Whether anybody seems to hold a lock now."""
        return _holder(self._place.read_with_token(path_of(name))[0]) != ""


def path_of(name: str) -> str:
    """Where a lock lies."""
    return f"locks/{name}.json"


def _taken(place: Place, name: str) -> str:
    return f"{place.where()}: another `vidloop {name}` works here: wait for it"


def _holder(data: bytes) -> str:
    """Who holds a lock by its object; what cannot be read is held by nobody."""
    with contextlib.suppress(ValueError):
        said = parse_json(data) if data else {}
        return str(said.get("holder", "")) if isinstance(said, dict) else ""
    return ""


class _Lease:
    def __init__(self, place: Place, name: str) -> None:
        self.name, self.path = name, path_of(name)
        self.renewed, self.lost, self.process = time.monotonic(), False, os.getpid()
        self._place, self._me, self._beat = place, uuid.uuid4().hex, 0
        self._token: str | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)

    def take(self, wait: bool) -> None:
        """Wait until it is ours, or (without `wait`) until it is certain that somebody holds it."""
        while not self._try(wait):
            pass
        self._thread.start()

    def leave(self) -> None:
        """Let go, so that nobody need watch it. Nothing is lost if that fails: it stands still then."""
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(StoreError):
            self._place.swap(self.path, _said("", self._beat + 1), self._token)

    def _try(self, wait: bool) -> bool:
        data, token = self._place.read_with_token(self.path)
        if _holder(data):
            since = time.monotonic()
            while time.monotonic() - since < TERM_S:
                time.sleep(_LOOK_S)
                now = self._place.token(self.path)
                if now != token:  # it lives, or is free
                    if not wait and _holder(self._place.read_with_token(self.path)[0]):
                        raise StoreError(_taken(self._place, self.name))
                    return False
            log.warning("%s: whoever held it is gone; it is taken over", self._place.where(self.path))
        return self._set(token)

    def _set(self, token: str | None) -> bool:
        asked = time.monotonic()
        said = _said(self._me, self._beat + 1)
        if not self._place.swap(self.path, said, token):
            return False
        data, self._token = self._place.read_with_token(self.path)
        if data != said:
            return False
        self._beat += 1
        self.renewed = asked
        return True

    def _renew(self) -> None:
        while not self._ended.wait(_BEAT_S):
            with contextlib.suppress(StoreError):
                if not self._set(self._token):
                    self.lost = True
                    return


def _said(holder: str, beat: int) -> bytes:
    return json.dumps({"holder": holder, "beat": beat}).encode()
