"""The store: what was computed, kept under the question it answers.

    format.json                              {"format": 1, "written_by": ...}
    manifests/<stage>/<key>.json             immutable; the commit point
    parts/<stage>/<ke>/<key>/<table>-<sha12>.parquet
    media/<sh>/<sha256>.<ext>                videos, latents, adapters
    rounds/<round id>/  champion.json  runs/<run id>.jsonl  scratch/<key>/  locks/  tmp/

A unit of work writes its media, then its parts, then its manifest. Before the manifest is there nothing of
the unit can be seen; after it, everything is there. So a crash leaves nothing to repair, and the same command
run again gives the same bytes: nothing that is committed holds a time, a host or a process id. Readers find
files through manifests, never by listing folders.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import logging
import os
import re
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import StoreError
from data.store.failpoints import failpoint
from data.json_text import parse_json
from data.keys import bytes_digest, canonical_json, digest, file_digest
from data.store.manifest import REMEDY, DamagedManifest, Manifest, Media, Part
from data.records import TABLES, Row, from_table, to_table
from data.store.durable_files import (
    inside, lock_file, make_folder, make_safe, remove, storage_errors, sync_folder, write_durably,
)  # fmt: skip
from data.store.trials import require_working

FORMAT: Final = 1
_FOLDERS: Final = {"manifests", "parts", "media", "rounds", "runs", "scratch", "locks", "tmp"}
_KEY: Final = re.compile(r"[0-9a-f]{64}")
_STAGE: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_SUFFIX: Final = re.compile(r"[a-z0-9]{1,16}")

log = logging.getLogger("vidloop.store")


class Store:
    """A folder of committed work. Get one with `Store.open`; any number of processes may have it open.

    Attributes:
        root: absolute path of the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    # -- opening -------------------------------------------------------------------------------------------

    @classmethod
    def open(cls, root: str | Path, create: bool = False) -> Store:
        """Open the store at `root`.

        Args:
            root: the store's folder.
            create: make the store if there is none. It will be written to: that this works is tried.

        Raises:
            StoreError: there is no store (and `create` is False), the folder is something else, the store was
                written by a newer version, or it cannot be created, or written to as a store must be.
        """
        store = cls(Path(root).expanduser().absolute())
        path = store.root / "format.json"
        with storage_errors(path):
            missing = not path.is_file()
        if missing:
            if not create:
                raise StoreError(
                    f"no store at {store.root}: name one with --store, or make one with `vidloop round`"
                )
            store._create(path)
        store._check_format(path)
        if create:
            require_working(store.root)
        return store

    def _create(self, path: Path) -> None:
        with storage_errors(self.root):
            make_folder(self.root)
            # Our own folders may be there if a crash came between making them and format.json.
            strange = sorted({entry.name for entry in self.root.iterdir()} - _FOLDERS - {path.name})
        if strange:
            raise StoreError(
                f"{self.root} is neither a store nor empty (it holds {strange[0]}): name another"
            )
        writer = "(run without installation)"
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            writer = importlib.metadata.version("vidloop")
        written = {"format": FORMAT, "written_by": writer}
        self._write("format.json", (json.dumps(written) + "\n").encode(), replace=False)

    def _check_format(self, path: Path) -> None:
        with storage_errors(path):
            text = path.read_bytes()
        try:
            found = parse_json(text)
            number, writer = int(found["format"]), found.get("written_by", "an unnamed version")
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise StoreError(f'{path} is damaged: restore it as {{"format": {FORMAT}}}') from error
        if number > FORMAT:
            raise StoreError(
                f"{self.root} has store format {number}, written by vidloop {writer}; this program reads "
                f"format {FORMAT}: use vidloop {writer} or newer, or name another store with --store"
            )

    # -- media ---------------------------------------------------------------------------------------------

    def write_media(self, data: bytes, suffix: str) -> Media:
        """Keep a file under the name of its content; keeping it twice is keeping it once.

        Args:
            data: the file's bytes.
            suffix: "mp4", "safetensors", ... with or without the leading dot.

        Raises:
            StoreError: the disk is full or the store is read-only.
        """
        extension = suffix.removeprefix(".")
        if not _SUFFIX.fullmatch(extension):
            raise ValueError(f"media suffix {suffix!r} must be lower-case letters and digits")
        sha = bytes_digest(data)
        media = Media(f"media/{sha[:2]}/{sha}.{extension}", sha, len(data))
        self._keep(media, data)
        failpoint("store.after_media")
        return media

    def read_media(self, path: str) -> bytes:
        """Bytes of a media file, checked against the digest that is its name.

        Raises StoreError: the file is missing or was changed.
        """
        return self._read_bytes(path, Path(path).stem)

    def path(self, relative: str) -> Path:
        """Absolute path of something the store names. Raises StoreError for a path that leaves the store."""
        return inside(self.root, relative)

    # -- committing ----------------------------------------------------------------------------------------

    def commit(
        self,
        stage: str,
        question: Mapping[str, Any],
        tables: Mapping[str, Sequence[Row]],
        media: Sequence[Media] = (),
        parents: Sequence[str] = (),
        info: Mapping[str, Any] | None = None,
    ) -> Manifest:
        """Write a unit's rows and make it visible, in one step.

        The first manifest of a key stays: a second commit of the same content changes nothing, and one of
        other content (a stage that is not deterministic, a question that forgets an input) logs a warning.

        Args:
            stage: lower-case name of the stage; equals question["stage"].
            question: all that decides the answer, as exact JSON: "stage", "version", settings, input digests.
            tables: rows of each table; an empty sequence states that there are none.
            media: files written with `write_media` that the rows name.
            parents: keys of the manifests this unit was computed from.
            info: what is worth saying about the work.

        Returns:
            The manifest that is in the store now.

        Raises:
            StoreError: the disk is full, the store is read-only, or a media file is not there.
            ValueError: rows that `data.records.to_table` refuses, or that name media missing from `media`.
            TypeError, ValueError: `question` or `info` is not exact JSON (see `data.keys.digest`).
        """
        if not _STAGE.fullmatch(stage) or question.get("stage") != stage:
            raise ValueError(
                f"stage {stage!r} is no stage name, or not the question's {question.get('stage')!r}"
            )
        key = digest(dict(question))
        encoded = {name: to_table(name, rows) for name, rows in sorted(tables.items())}
        self._check_media(encoded, media)
        parts = tuple(self._write_part(stage, key, name, table) for name, table in encoded.items())
        # Through JSON and back: what is in memory equals what is read from the file (tuples become lists).
        plain = json.loads(canonical_json({"question": dict(question), "info": dict(info or {})}))
        files = tuple(sorted(set(media), key=lambda item: item.path))
        manifest = Manifest(key, stage, plain["question"], parts, files, tuple(sorted(set(parents))), plain["info"])
        failpoint("store.before_manifest")
        won = self._write(_manifest_path(stage, key), manifest.to_bytes(), replace=False)
        failpoint("store.after_manifest")
        if won:
            return manifest
        first = self._load(self.path(_manifest_path(stage, key)))
        if first != manifest:
            log.warning(
                "%s %s was committed before with other content; the first stays (%s, not %s)",
                stage, key[:12], first.digest[:12], manifest.digest[:12],
            )  # fmt: skip
        return first

    def settle(self, stages: Iterable[str]) -> None:
        """See to it that the units of these stages that are there stay there, whenever the power goes.

        A process may have been killed between a commit and the moment from which it was safe. Raises
        StoreError: the store's file system fails.
        """
        for folder in (self.root / "manifests" / stage for stage in sorted(set(stages))):
            with storage_errors(folder):
                if folder.is_dir():
                    make_folder(folder)
                    sync_folder(folder)

    def discard(self, key: str) -> None:
        """Forget a unit, so that it is computed again. Its media stay for `data.store.gc`: others may name them.

        Raises StoreError: the store is read-only.
        """
        path = self._find(key)
        if path is None:
            return
        # The manifest goes first: a crash in between leaves files nobody names, not a manifest without files.
        remove(path)
        folder = self.path(f"parts/{path.parent.name}/{key[:2]}/{key}")
        with storage_errors(folder):
            if folder.is_dir():
                shutil.rmtree(folder)
                sync_folder(folder.parent)

    # -- reading -------------------------------------------------------------------------------------------

    def manifest(self, key: str) -> Manifest | None:
        """The manifest of `key`, or None if that question has no answer yet.

        Raises StoreError: the manifest was changed after it was written, or is of a newer version.
        """
        path = self._find(key)
        return None if path is None else self._load(path)

    def verify(self, key: str, level: Literal["hash", "size"] = "hash") -> str | None:
        """None if the unit is whole, else why it is not.

        Args:
            key: the unit.
            level: "hash" reads every part and media file and compares SHA-256; "size" compares sizes only.

        Raises:
            StoreError: the manifest is of a newer version; it is not ours to judge.
        """
        try:
            manifest = self.manifest(key)
        except DamagedManifest as error:
            return str(error)
        if manifest is None:
            return "no manifest"
        faults = (self.fault(item, level) for item in manifest.files)
        return next((fault for fault in faults if fault is not None), None)

    def fault(self, item: Part | Media, level: Literal["hash", "size"] = "hash") -> str | None:
        """None if one file of a unit is whole, else why it is not; `level` as in `verify`."""
        kind = "part" if isinstance(item, Part) else "media"
        path = self.path(item.path)
        try:
            size = path.stat().st_size
            if size != item.bytes:
                return f"size of {kind} {item.path} differs ({size} bytes, not {item.bytes})"
            if level == "hash" and file_digest(path) != item.sha256:
                return f"sha256 of {kind} {item.path} differs"
        except FileNotFoundError:
            return f"missing {kind} {item.path}"
        except OSError as error:
            return f"unreadable {kind} {item.path}: {error.strerror}"
        return None

    def read(self, key: str, table: str) -> list[Any]:
        """Rows of one table of one unit, in key order; none if the unit has no such table.

        Raises StoreError: the unit is not there, or a part is missing or was changed.
        """
        return from_table(table, self.arrow([key], table))

    def arrow(self, keys: Iterable[str], table: str) -> pa.Table:
        """One table of several units as Arrow, units in the order of `keys`. Raises as `read` does."""
        schema = TABLES[table].schema
        tables = [schema.empty_table()]
        for key in keys:
            manifest = self.manifest(key)
            if manifest is None:
                raise StoreError(f"{self.root} holds no unit {key}. {REMEDY}")
            part = manifest.part(table)
            if part is not None:
                data = self._read_bytes(part.path, part.sha256)
                # `read_table` would look for partitions first, which takes longer than reading a small part.
                try:
                    with pq.ParquetFile(pa.BufferReader(data)) as file:
                        found = file.read(use_threads=False)
                    # Columns of a later version are left out; the cast loads much, so only then.
                    tables.append(found if found.schema == schema else found.select(schema.names).cast(schema))
                except (pa.ArrowException, LookupError, OSError, ValueError) as error:
                    raise StoreError(f"{self.path(part.path)} is no table {table}: {error}. {REMEDY}") from error
        return pa.concat_tables(tables)

    def manifests(self, stage: str | None = None) -> list[Manifest]:
        """Every committed unit (of one stage), sorted by key. Raises StoreError if a manifest was changed."""
        found = sorted(self.root.glob(f"manifests/{stage or '*'}/*.json"), key=lambda path: path.name)
        return [self._load(path) for path in found]

    # -- beside the committed work -------------------------------------------------------------------------

    def write_file(self, relative: str, data: bytes) -> Path:
        """Write or replace a file that is not content-addressed (a round's summary), in one step.

        Raises StoreError: the path leaves the store, the disk is full, or the store is read-only.
        """
        self._write(relative, data, replace=True)
        return self.path(relative)

    def log_run(self, run_id: str, event: Mapping[str, Any]) -> None:
        """Append a fact about a run (seconds, cached, ...) to `runs/<run id>.jsonl`, outside every digest.

        The time (UTC), host and process id are added here.
        """
        facts = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }
        path = self.path(f"runs/{run_id}.jsonl")
        line = json.dumps(facts | dict(event), allow_nan=False) + "\n"
        with storage_errors(path):
            make_folder(path.parent)
            with open(path, "ab+") as file:
                # A crash may have torn the last line; do not let it swallow this one.
                if file.tell() > 0:
                    file.seek(-1, os.SEEK_END)
                    line = line if file.read(1) == b"\n" else "\n" + line
                file.write(line.encode())

    def scratch(self, key: str) -> Path:
        """A folder for the checkpoints of unit `key` while it is computed; nothing else reads it."""
        path = self.path(f"scratch/{_checked(key)}")
        with storage_errors(path):
            make_folder(path)
        return path

    def clear_scratch(self, key: str) -> None:
        """Remove the unit's checkpoints, once it is committed."""
        path = self.path(f"scratch/{_checked(key)}")
        with storage_errors(path):
            if path.is_dir():
                shutil.rmtree(path)

    @contextlib.contextmanager
    def lock(self, name: str, wait: bool = True) -> Iterator[None]:
        """Hold `locks/<name>.lock` against every other process; a process that dies lets go of it.

        Raises StoreError: another process holds it, and this one does not `wait`; or there are no locks.
        """
        path = self.path(f"locks/{name}.lock")
        with storage_errors(path):
            make_folder(path.parent)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            with storage_errors(path):
                locked = lock_file(descriptor, path, wait)
            if not locked:
                raise StoreError(f"{self.root}: another `vidloop {name}` works here: wait for it")
            yield
        finally:
            os.close(descriptor)

    # -- inside --------------------------------------------------------------------------------------------

    def _write(self, relative: str, data: bytes, *, replace: bool) -> bool:
        return write_durably(self.root / "tmp", self.path(relative), data, replace=replace)

    def _keep(self, item: Media | Part, data: bytes) -> None:
        """Write a content-named file unless its bytes are there; a damaged copy is replaced."""
        if self.fault(item) is None:
            path = self.path(item.path)
            # Young again, so that a garbage collector does not take it before the manifest names it.
            with storage_errors(path), contextlib.suppress(FileNotFoundError):  # it was quicker
                os.utime(path)
                make_safe(path)
                return
        self._write(item.path, data, replace=True)

    def _write_part(self, stage: str, key: str, name: str, table: pa.Table) -> Part:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", row_group_size=50_000, write_page_checksum=True)
        data = bytes(sink.getvalue())
        sha = bytes_digest(data)
        path = f"parts/{stage}/{key[:2]}/{key}/{name}-{sha[:12]}.parquet"
        part = Part(name, path, table.num_rows, sha, len(data))
        self._keep(part, data)
        failpoint("store.after_part")
        return part

    def _read_bytes(self, relative: str, sha256: str) -> bytes:
        path = self.path(relative)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}. {REMEDY}") from error
        if bytes_digest(data) != sha256:
            raise StoreError(f"{path} was changed after it was written (sha256 differs). {REMEDY}")
        return data

    def _check_media(self, tables: Mapping[str, pa.Table], media: Sequence[Media]) -> None:
        for item in media:
            if not self.path(item.path).is_file():
                raise StoreError(f"{self.root / item.path} is not there, so it cannot be committed. {REMEDY}")
        held = {item.path for item in media}
        for name, table in tables.items():
            for column in TABLES[name].media:
                named = set(table.column(column).to_pylist()) - {""}
                if not named <= held:
                    raise ValueError(f"{name}.{column} names {min(named - held)}, which is not in `media`")

    def _find(self, key: str) -> Path | None:
        folder, name = self.root / "manifests", f"{_checked(key)}.json"
        # Asked thousands of times by a cached round: `glob` would take three times as long.
        with contextlib.suppress(FileNotFoundError):
            for stage in os.listdir(folder):
                path = f"{folder}/{stage}/{name}"
                if os.path.exists(path):
                    return Path(path)
        return None

    def _load(self, path: Path) -> Manifest:
        try:
            return Manifest.from_bytes(path.read_bytes(), str(path))
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}") from error


def _manifest_path(stage: str, key: str) -> str:
    return f"manifests/{stage}/{key}.json"


def _checked(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise StoreError(f"{key!r} is not a key: a key is 64 hexadecimal digits")
    return key
