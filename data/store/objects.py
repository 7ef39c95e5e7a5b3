"""A store on object storage: a `data.store.backend.Backend` over conditional requests.

A put that creates is the commit point (`If-None-Match: *`), a swap replaces one etag (`If-Match`); a service
that ignores either would lose work in silence, so both are tried before the first writing. Objects are whole
or not there, are there for every reader once the put is answered, and do not rot: the service keeps digests.

A log grows by objects of this process (`runs/<run>.<process>-<id>.jsonl`), since none can be appended to.
Media are read through a cache of this machine (`data.store.cache`).
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import obstore

from data.errors import StoreError
from data.store.aside import FOLDER as ASIDE
from data.store.aside import LOG
from data.store.backend import Entry, Trial, plain
from data.store.bucket import Bucket, Lost
from data.store.cache import Cache, cache_folder
from data.store.durable_files import write_durably
from data.store.failpoints import failpoint
from data.store.leases import TERM_S, Leases

# Read and written in pieces of this size: a request has a deadline.
_PIECE: Final = 8 << 20
# What is older than this when it is used again is written anew, so that it is young for a collector.
_YOUNG_S: Final = 6 * 3600.0
# Between two looks of a collector at whether somebody waits for it.
_BATCH: Final = 64
# Of a listing; and how many that are asked for must be in it for it to be better than as many requests.
_PAGE: Final = 1000
_WORTH_LISTING: Final = 4
_LOG_BYTES: Final = 64 << 10
_GC: Final = "gc"
_IGNORES: Final = (
    "{url}: the service {does}, so that of two runs that finish one unit both would win and work would be "
    "lost: keep the store on a service that honours conditional requests, or in a folder"
)


class Objects:
    """A `data.store.backend.Backend`.

    Attributes:
        bucket: where the objects are.
    """

    rots = False

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        place = hashlib.sha256(f"{bucket.url} {bucket.endpoint}".encode()).hexdigest()[:16]
        self._workspace = cache_folder() / "stores" / f"{bucket.name}-{place}"
        self._cache = Cache(self._workspace)
        self._leases = Leases(self)
        self._tried = False
        self._logs: dict[str, tuple[str, bytes]] = {}

    @property
    def url(self) -> str:
        """The URL, without a slash at the end."""
        return self.bucket.url

    @property
    def workspace(self) -> Path:
        """A folder of this store in the cache of this machine."""
        return self._workspace

    def where(self, path: str = "") -> str:
        """The object's URL."""
        return f"{self.url}/{plain(path)}" if path else self.url

    def local(self, path: str) -> Path:
        """A copy: in the cache, if its name is its content's; else as it is now."""
        if _is_content_named(plain(path)):
            return self._cache.get(path) or self._cache.put(path, lambda file: self._fetch(path, file))
        file = self._workspace / path
        write_durably(file.parent, file, self.read(path), replace=True)
        return file

    # -- reading -------------------------------------------------------------------------------------------

    def read(self, path: str) -> bytes:
        """As `Backend`."""
        if _is_content_named(plain(path)):
            return self.local(path).read_bytes()
        return self.bucket.ask(path, lambda: bytes(obstore.get(self.bucket.objects, path).bytes()))

    def size(self, path: str) -> int:
        """As `Backend`."""
        return int(self._head(path)["size"])

    def sizes(self, paths: Sequence[str]) -> dict[str, int]:
        """As `Backend`: a listing from the first of them on names a thousand objects at once.

        Where few of a listing are (a large store of which little is asked), `size` is the cheaper one.
        """
        found: dict[str, int] = {}
        left = sorted(set(paths), reverse=True) if self.bucket.scheme != "az" else []  # lists from the start
        while len(left) >= _WORTH_LISTING:
            folder = left[-1].partition("/")[0]
            page = self._page(folder, left[-1])
            here = {one["path"]: int(one["size"]) for one in page}
            last = page[-1]["path"] if len(page) == _PAGE else f"{folder}0"  # "0" comes after "/"
            count = len(left)
            while left and left[-1] <= last:
                path = left.pop()
                if path in here:
                    found[path] = here[path]
            if count - len(left) < _WORTH_LISTING and len(page) == _PAGE:
                left = [path for path in left if path.partition("/")[0] != folder]
        return found

    def sha256(self, path: str) -> str:
        """As `Backend`; read from the service and not from the cache."""
        found = hashlib.sha256()
        for piece in self._pieces(path):
            found.update(piece)
        return found.hexdigest()

    def taken(self, path: str) -> bool:
        """As `Backend`."""
        with contextlib.suppress(FileNotFoundError):
            self._head(path)
            return True
        return False

    def is_link(self, path: str) -> bool:
        """No object is a link."""
        return False

    def is_plain(self, path: str) -> bool:
        """Every object is."""
        return True

    def modified(self, path: str) -> float:
        """As `Backend`."""
        return float(self._head(path)["last_modified"].timestamp())

    def names(self, folder: str) -> list[str]:
        """As `Backend`."""
        found = self._ask(folder, lambda: obstore.list_with_delimiter(self.bucket.objects, folder or None))
        paths = [*found["common_prefixes"], *(one["path"] for one in found["objects"])]
        return [path.rsplit("/", 1)[-1] for path in paths]

    def find(self, pattern: str) -> list[str]:
        """As `Backend`: everything below the part of the pattern that has no "*" is listed."""
        words = pattern.split("/")
        fixed = "/".join(words[: next((n for n, word in enumerate(words) if "*" in word), len(words))])

        def matches(path: str) -> bool:
            parts = path.split("/")
            return len(parts) == len(words) and all(map(fnmatch.fnmatchcase, parts, words))

        return sorted(one["path"] for one in self._list(fixed) if matches(one["path"]))

    # -- writing -------------------------------------------------------------------------------------------

    def create(self, path: str, data: bytes) -> bool:
        """As `Backend`."""
        self._before_writing()
        with contextlib.suppress(Lost):
            self._put(path, data, "create")
            return True
        return False

    def put(self, path: str, data: bytes) -> None:
        """As `Backend`; what is large goes in pieces, and is there once the last one is."""
        self._before_writing()
        self._put(path, data, "overwrite")

    def token(self, path: str) -> str | None:
        """As `Backend`: the etag."""
        with contextlib.suppress(FileNotFoundError):
            etag: str | None = self._head(path)["e_tag"]
            return etag
        return None

    def read_with_token(self, path: str) -> tuple[bytes, str | None]:
        """Content and token of one moment; (b"", None) if there is no object."""

        def get() -> tuple[bytes, str | None]:
            found = obstore.get(self.bucket.objects, path)
            return bytes(found.bytes()), found.meta["e_tag"]

        with contextlib.suppress(FileNotFoundError):
            return self.bucket.ask(path, get)
        return b"", None

    def swap(self, path: str, data: bytes, token: str | None) -> bool:
        """As `Backend`; atomic, whoever holds which lock.

        An answer may be lost on its way back: where the object says this, it was ours, or as good as ours.
        """
        with contextlib.suppress(FileNotFoundError):
            try:
                self._put(path, data, "create" if token is None else {"e_tag": token})
                return True
            except Lost:
                return self.read_with_token(path)[0] == data
        return False

    def append(self, path: str, line: str) -> None:
        """As `Backend`: written anew with every line, until it is large enough to begin another."""
        self._before_writing()
        name, text = self._logs.get(path, ("", b""))
        if len(text) > _LOG_BYTES or name.rpartition("-")[0] != _process():
            name, text = f"{_process()}-{uuid.uuid4().hex[:8]}", b""
        text += line.encode()
        stem, dot, suffix = path.rpartition(".")
        self._put(f"{stem}.{name}{dot}{suffix}", text, "overwrite")
        self._logs[path] = (name, text)

    def keep(self, path: str, data: bytes) -> bool:
        """As `Backend`.

        An object cannot be touched: an old one is written anew. A collector that looked at it before may be
        about to delete it: whoever deletes holds a lock, and is waited for.
        """
        try:
            age = datetime.now(UTC) - self._head(path)["last_modified"]
        except FileNotFoundError:
            return False
        if age.total_seconds() > _YOUNG_S:
            self.put(path, data)
            self._wait_for_collector()
            return self.taken(path)
        return True

    def _wait_for_collector(self) -> None:
        since = time.monotonic()
        while self._leases.is_taken(_GC) and time.monotonic() - since < 2 * TERM_S:
            time.sleep(0.2)

    def settle(self, folder: str) -> None:
        """What was answered is there."""

    # -- taking out ----------------------------------------------------------------------------------------

    def remove(self, path: str) -> None:
        """As `Backend`."""
        self._before_writing()
        for one in [path, *(found["path"] for found in self._list(path))]:
            self._delete(one)

    def set_aside(self, path: str, why: str) -> None:
        """As `Backend`: copied, noted, and removed; a crash in between leaves the object in its place."""
        self._before_writing()
        held = [path] if self.taken(path) else [found["path"] for found in self._list(path)]
        if not held:
            return
        to = f"{ASIDE}/{plain(path)}"
        folder, _, name = to.rpartition("/")
        there, place, count = set(self.names(folder)), name, 1
        while place in there:
            count += 1
            place = f"{name}~{count}"
        now = f"{folder}/{place}"
        for one in held:
            self._ask(one, lambda one=one: obstore.copy(self.bucket.objects, one, now + one[len(path) :]))
        line = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "path": path, "now": now, "why": why}
        self.append(LOG, json.dumps(line, ensure_ascii=False) + "\n")
        for one in held:
            self._delete(one)

    def entries(self) -> Iterator[Entry]:
        """As `Backend`."""
        for one in self._list(""):
            yield Entry(one["path"], one["size"], one["last_modified"].timestamp())

    def sweep(self, paths: Sequence[str], since: float) -> set[str]:
        """As `Backend`.

        Under a lock that a unit which uses an old object again waits for (`keep`); let go often, so that none
        waits long.
        """
        self._before_writing()
        gone: set[str] = set()
        for start in range(0, len(paths), _BATCH):
            with self.lock(_GC):
                for path in paths[start : start + _BATCH]:
                    self._leases.check()
                    with contextlib.suppress(FileNotFoundError):
                        if self._head(path)["last_modified"].timestamp() > since:
                            continue
                        self._delete(path)
                    gone.add(path)
        return gone

    def idle(self, since: float) -> list[str]:
        """There are no folders."""
        return []

    def drop(self, folder: str) -> None:
        """There are no folders."""

    # -- processes, and the place --------------------------------------------------------------------------

    def lock(self, name: str, wait: bool = True) -> AbstractContextManager[None]:
        """As `Backend`, by a lease (`data.store.leases`)."""
        self._before_writing()
        return self._leases.hold(name, wait)

    def make(self) -> list[str]:
        """As `Backend`; the bucket must be there."""
        return self.names("")

    def require_working(self) -> None:
        """As `Backend`."""
        if not self._tried:
            # Twice, if need be: a request of ours that was lost on its way may arrive late.
            faults = [one.fault for one in self.trials() if one.fault]
            if faults and (faults := [one.fault for one in self.trials() if one.fault]):
                raise StoreError(faults[0])
            self._tried = True

    def trials(self) -> Iterator[Trial]:
        """As `Backend`: the conditions that all rests on."""
        path = f"tmp/{uuid.uuid4().hex}.tmp"  # should we be killed, its name says that it is garbage
        try:
            written = self.swap(path, b"first", None)
            yield self._trial("objects are written", written, "refuses a new name")
            refused = not self.swap(path, b"no", None)
            yield self._trial("of two writers one wins", refused, "ignores If-None-Match")
            stale = self.token(path)
            self._put(path, b"second", "overwrite")
            refused = not self.swap(path, b"no", stale)
            yield self._trial("a stale change is refused", refused, "ignores If-Match")
            taken = self.swap(path, b"third", self.token(path))
            yield self._trial("a change of what was read is taken", taken, "refuses a fresh etag")
        finally:
            self._delete(path)

    def _trial(self, what: str, fine: bool, does: str) -> Trial:
        return Trial(f"{self.url}: {what}", "" if fine else _IGNORES.format(url=self.url, does=does))

    def attach(self, connection: Any) -> None:
        """As `Backend`."""
        from obstore.fsspec import FsspecStore

        protocol: Any = self.bucket.scheme
        # Not one that an earlier connection made: it would keep the credentials and the address of then.
        options: dict[str, Any] = {"skip_instance_cache": True, **self.bucket.options()}
        connection.register_filesystem(FsspecStore(protocol, **options))

    # -- inside --------------------------------------------------------------------------------------------

    def _before_writing(self) -> None:
        """Nothing is written to a service that ignores conditions, nor under a lock that was lost."""
        self.require_working()
        self._leases.check()

    def _ask(self, path: str, call: Any) -> Any:
        return self.bucket.ask(path, call)

    def _head(self, path: str) -> Any:
        plain(path)
        return self._ask(path, lambda: obstore.head(self.bucket.objects, path))

    def _list(self, folder: str) -> list[Any]:
        def whole() -> list[Any]:
            return [one for some in obstore.list(self.bucket.objects, folder or None) for one in some]

        return self.bucket.ask(folder, whole)

    def _page(self, folder: str, first: str) -> list[Any]:
        """The objects of a folder from a path on, as many as one request names."""

        def some() -> list[Any]:
            # What comes just before the path: an offset is not named itself.
            before = first[:-1] + chr(ord(first[-1]) - 1) + "~"
            pages = obstore.list(self.bucket.objects, folder, offset=before, chunk_size=_PAGE)
            return list(next(iter(pages), []))

        return self.bucket.ask(folder, some)

    def _put(self, path: str, data: bytes, mode: Any) -> None:
        plain(path)
        failpoint("store.mid_write")
        self._ask(path, lambda: obstore.put(self.bucket.objects, path, data, mode=mode, chunk_size=_PIECE))

    def _delete(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._ask(path, lambda: obstore.delete(self.bucket.objects, path))

    def _pieces(self, path: str) -> Iterator[bytes]:
        size = self.size(path)

        def piece(start: int) -> bytes:
            end = min(size, start + _PIECE)
            return self.bucket.ask(
                path, lambda: bytes(obstore.get_range(self.bucket.objects, path, start=start, end=end))
            )

        with ThreadPoolExecutor(4) as pool:
            yield from pool.map(piece, range(0, size, _PIECE))

    def _fetch(self, path: str, file: Path) -> None:
        with open(file, "wb") as out:
            for piece in self._pieces(path):
                out.write(piece)


def _is_content_named(path: str) -> bool:
    """Whether a path's name is the digest of what it holds."""
    return path.startswith("media/")


def _process() -> str:
    """Names this process among those of all machines, of plain letters."""
    host = "".join(letter if letter.isalnum() else "-" for letter in socket.gethostname())[:40]
    return f"{host}-{os.getpid()}"
