"""The store: what was computed, kept under the question it answers.

    format.json                              {"format": 1, "written_by": ...}
    manifests/<stage>/<key>.json             immutable; the commit point
    parts/<stage>/<ke>/<key>/<table>-<sha12>.parquet
    media/<sh>/<sha256>.<ext>                videos, latents, adapters
    rounds/<round id>/  improvements/<id>/  calibrations/  champion.json  runs/<run id>.jsonl
    scratch/<key>/  locks/  tmp/  aside/     working space, and what was taken out (`data.store.aside`)

A unit of work writes its media, then its parts, then its manifest. Before the manifest is there nothing of
the unit can be seen; after it, everything is there. So a crash leaves nothing to repair, and the same command
run again gives the same bytes: nothing that is committed holds a time, a host or a process id. Readers find
files through manifests, never by listing folders.

What is damaged, whatever lies in its place, counts as not there: it is set aside when its unit is computed
anew, and `vidloop scrub --heal` does so with everything at once.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shlex
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
from data.store import format
from data.store.aside import set_aside
from data.store.manifest import Damaged, Manifest, Media, Part
from data.records import TABLES, Row, from_table, to_table
from data.store.durable_files import (
    inside,
    is_folder,
    lock_file,
    make_folder,
    make_safe,
    remove,
    storage_errors,
    sync_folder,
    write_durably,
)
from data.store.trials import require_working

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
        if format.is_missing(store.root):
            if not create:
                if format.is_store_without(store.root):
                    raise Damaged(f"{store.root}/format.json is missing: `{store.heal_command}` writes it anew")
                raise StoreError(
                    f"no store at {store.root}: name one with --store, or make one with `vidloop round`"
                )
            format.create(store.root)
        format.check(store.root)
        if create:
            require_working(store.root)
        return store

    @property
    def heal_command(self) -> str:
        """What a person types to have everything damaged set aside."""
        return format.heal_command(self.root)

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
        tables: Mapping[str, Sequence[Row] | pa.Table],
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
            tables: rows of each table, or an Arrow table of them; an empty one states that there are none.
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
        place = _manifest_path(stage, key)
        won = self._write(place, manifest.to_bytes(), replace=False)
        failpoint("store.after_manifest")
        if won:
            return manifest
        try:
            first = self.manifest_at(self.path(place))
        except Damaged as error:
            self.set_aside(place, error.what)
            self._write(place, manifest.to_bytes(), replace=True)
            return manifest
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
        """Forget a whole unit, so that it is computed again. Its media stay for `data.store.gc`.

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

    def set_aside(self, relative: str, why: str) -> None:
        """Take a file, or what lies in its place, out of the store; see `data.store.aside`.

        Raises StoreError: the store is read-only, or the path leaves it.
        """
        set_aside(self.root, self.path(relative), why)

    def set_unit_aside(self, key: str, why: str) -> None:
        """Take a unit out of the store, so that it is computed again: its manifest, its parts, and those of
        its media that are damaged.

        Raises StoreError: the store is read-only.
        """
        path = self._find(key)
        if path is None:
            return
        with contextlib.suppress(Damaged):
            manifest = self.manifest_at(path)
            for item in manifest.media:
                if self.fault(item) is not None:
                    self.set_aside(item.path, why)
        # The manifest goes first: a crash in between leaves files nobody names, not a manifest without files.
        set_aside(self.root, path, why)
        set_aside(self.root, self.path(f"parts/{path.parent.name}/{key[:2]}/{key}"), why)

    # -- reading -------------------------------------------------------------------------------------------

    def manifest(self, key: str) -> Manifest | None:
        """The manifest of `key`, or None if that question has no answer yet.

        Raises:
            Damaged: the manifest was changed after it was written.
            StoreError: it is of a newer version, or may not be read.
        """
        path = self._find(key)
        return None if path is None else self.manifest_at(path)

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
        except Damaged as error:
            return error.what
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

        Raises Damaged: the unit is not there, or a part is missing or was changed.
        """
        return from_table(table, self.arrow([key], table))

    def arrow(self, keys: Iterable[str], table: str) -> pa.Table:
        """One table of several units as Arrow, units in the order of `keys`. Raises as `read` does."""
        schema = TABLES[table].schema
        tables = [schema.empty_table()]
        for key in keys:
            manifest = self.manifest(key)
            if manifest is None:
                raise Damaged(f"{self.root} holds no unit {key}: run the command that made it again")
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
                    raise Damaged(f"{self.path(part.path)} is no table {table}: {error}", self._remedy) from error
        return pa.concat_tables(tables)

    def manifests(self, stage: str | None = None) -> list[Manifest]:
        """Every committed unit (of one stage), sorted by key. Raises Damaged if a manifest was changed."""
        return [self.manifest_at(path) for path in self.manifest_files(stage)]

    def manifest_files(self, stage: str | None = None) -> list[Path]:
        """Where the manifests lie (of one stage), sorted by key; unread."""
        return sorted(self.root.glob(f"manifests/{stage or '*'}/*.json"), key=lambda path: path.name)

    def manifest_at(self, path: Path) -> Manifest:
        """The manifest of a file that `manifest_files` named. Raises as `manifest`."""
        try:
            found = Manifest.from_bytes(path.read_bytes(), str(path))
        except Damaged as error:
            raise Damaged(error.what, self._remedy) from error
        except PermissionError as error:
            readable = f"make it readable for this user (`chmod u+r {shlex.quote(str(path))}`)"
            raise StoreError(f"cannot read {path}: {error.strerror}; {readable}") from error
        except OSError as error:
            raise Damaged(f"cannot read {path}: {error.strerror}", self._remedy) from error
        if (found.key, found.stage) != (path.stem, path.parent.name):
            raise Damaged(f"{path} is the manifest of another unit", self._remedy)
        return found

    # -- beside the committed work -------------------------------------------------------------------------

    def write_file(self, relative: str, data: bytes) -> Path:
        """Write or replace a file that is not content-addressed (a round's summary), in one step.

        Raises StoreError: the path leaves the store, the disk is full, or the store is read-only.
        """
        path = self.path(relative)
        if is_folder(path):
            self.set_aside(relative, "a folder in the place of a file")
        self._write(relative, data, replace=True)
        return path

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
        if os.path.lexists(path) and not is_folder(path):
            self.set_aside(f"scratch/{key}", "it is no folder")
        with storage_errors(path):
            make_folder(path)
        return path

    def clear_scratch(self, key: str) -> None:
        """Remove the unit's checkpoints, once it is committed."""
        path = self.path(f"scratch/{_checked(key)}")
        with storage_errors(path):
            if is_folder(path):
                shutil.rmtree(path)

    @contextlib.contextmanager
    def lock(self, name: str, wait: bool = True) -> Iterator[None]:
        """Hold `locks/<name>.lock` against every other process; a process that dies lets go of it.

        Raises StoreError: another process holds it, and this one does not `wait`; or there are no locks.
        """
        path = self.path(f"locks/{name}.lock")
        if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
            self.set_aside(f"locks/{name}.lock", "it is no file")
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
        fault, path = self.fault(item), self.path(item.path)
        if fault is None:
            # Young again, so that a garbage collector does not take it before the manifest names it.
            with storage_errors(path), contextlib.suppress(FileNotFoundError):  # it was quicker
                os.utime(path)
                make_safe(path)
                return
        if os.path.lexists(path):
            self.set_aside(item.path, fault or "it is gone")
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
            raise Damaged(f"cannot read {path}: {error.strerror}", self._remedy) from error
        if bytes_digest(data) != sha256:
            raise Damaged(f"{path} was changed after it was written (sha256 differs)", self._remedy)
        return data

    def _check_media(self, tables: Mapping[str, pa.Table], media: Sequence[Media]) -> None:
        for item in media:
            if not self.path(item.path).is_file():
                raise StoreError(f"{self.root / item.path} is not there, so it cannot be committed: run again")
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
                if os.path.lexists(path):
                    return Path(path)
        return None

    @property
    def _remedy(self) -> str:
        return (
            f"Run the command that made it again, which computes it anew; or `{self.heal_command}` sets aside "
            "what is damaged"
        )


def _manifest_path(stage: str, key: str) -> str:
    return f"manifests/{stage}/{key}.json"


def _checked(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise StoreError(f"{key!r} is not a key: a key is 64 hexadecimal digits")
    return key
