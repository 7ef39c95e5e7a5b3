"""The store: what was computed, kept under the question it answers.

    format.json                              {"format": 1, "written_by": ...}
    manifests/<stage>/<key>.json             immutable; the commit point
    parts/<stage>/<ke>/<key>/<table>-<sha12>.parquet
    media/<sh>/<sha256>.<ext>                videos, latents, adapters
    rounds/<round id>/  improvements/<id>/  calibrations/  rewards/  champion.json  runs/<run id>.jsonl
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
import itertools
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

import pyarrow as pa

from data.errors import StoreError
from data.keys import bytes_digest, canonical_json, digest
from data.records import Row, from_table, to_table
from data.store import format, reward_versions, rows, segments
from data.store.aside import set_aside
from data.store.backend import plain
from data.store.covering import Covering
from data.store.documents import Documents
from data.store.durable_files import is_folder, make_folder, storage_errors
from data.store.failpoints import failpoint
from data.store.folder import Folder
from data.store.manifest import Damaged, Manifest, Media, Part, read_manifest
from data.store.parts import encode
from data.store.places import backend_of

# What is said of a question that has no answer yet.
NOT_THERE: Final = "no manifest"

_KEY: Final = re.compile(r"[0-9a-f]{64}")
_STAGE: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_SUFFIX: Final = re.compile(r"[a-z0-9]{1,16}")
# Units that are looked up together: their manifests are held in memory.
_AT_ONCE: Final = 10_000

log = logging.getLogger("vidloop.store")


class Store(Documents):
    """Committed work. Get it with `Store.open`; any number of processes may have it open."""

    @property
    def root(self) -> Path:
        """Absolute path of the folder. Raises StoreError: the store is in no folder."""
        if not isinstance(self.backend, Folder):
            raise StoreError(f"{self.url} is no folder, and what was asked needs one")
        return self.backend.root

    # -- opening -------------------------------------------------------------------------------------------

    @classmethod
    def open(cls, root: str | Path, create: bool = False) -> Store:
        """Open the store at `root`.

        Args:
            root: the store's folder, or its URL on object storage: s3://BUCKET/PREFIX.
            create: make the store if there is none. It will be written to: that this works is tried.

        Raises:
            StoreError: there is no store (and `create` is False), something else is there, the store was
                written by a newer version, or it cannot be created, or written to as a store must be.
        """
        backend = backend_of(root)
        store = cls(backend)
        if format.is_missing(backend):
            if not create:
                if format.is_store_without(backend):
                    raise Damaged(
                        f"{backend.where(format.FILE)} is missing: `{store.heal_command}` writes it anew"
                    )
                raise StoreError(
                    f"no store at {backend.url}: name one with --store, or make one with `vidloop round`"
                )
            format.create(backend)
            reward_versions.note_complete(backend)
        format.check(backend)
        if create:
            backend.require_working()
        return store

    @property
    def heal_command(self) -> str:
        """What a person types to have everything damaged set aside."""
        return format.heal_command(self.url)

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
        """Absolute path of something in a folder's store. Raises StoreError for a path that leaves it."""
        return self.root / plain(relative)

    # -- committing ----------------------------------------------------------------------------------------

    def commit(
        self,
        stage: str,
        question: Mapping[str, Any],
        tables: Mapping[str, Sequence[Row] | pa.Table],
        media: Sequence[Media] = (),
        parents: Sequence[str] = (),
        info: Mapping[str, Any] | None = None,
        written: Sequence[Part] = (),
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
            written: parts that `write_part` has written already.

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
        rows.check_media(self, encoded, media)
        new = ((name, table.num_rows, encode(table)) for name, table in encoded.items())
        parts = (*written, *(self.write_part(stage, key, *one) for one in new))
        # Through JSON and back: what is in memory equals what is read from the file (tuples become lists).
        plain = json.loads(canonical_json({"question": dict(question), "info": dict(info or {})}))
        files = tuple(sorted(set(media), key=lambda item: item.path))
        manifest = Manifest(
            key, stage, plain["question"], parts, files, tuple(sorted(set(parents))), plain["info"]
        )
        reward_versions.note(self.backend, reward_versions.of(encoded))
        failpoint("store.before_manifest")
        place = _manifest_path(stage, key)
        won = self.backend.create(place, manifest.to_bytes())
        failpoint("store.after_manifest")
        if won:
            return manifest
        try:
            first = self.manifest_at(PurePosixPath(place))
        except Damaged as error:
            self.set_aside(place, error.what)
            self.backend.put(place, manifest.to_bytes())
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
        for stage in sorted(set(stages)):
            self.backend.settle(f"manifests/{stage}")

    def discard(self, key: str) -> None:
        """Forget a whole unit, so that it is computed again. Its media stay for `data.store.gc`.

        Raises StoreError: the store is read-only.
        """
        with self.lock(segments.LOCK):
            segments.drop(self, key)
            self.forget(key)

    def forget(self, key: str) -> None:
        """Remove a unit's own files; a segment that covers it still does. Raises as `discard`."""
        path = self._find(key)
        if path is not None:
            # The manifest goes first: a crash in between leaves files nobody names, not the reverse.
            self.backend.remove(str(path))
            self.backend.remove(_parts_folder(path))

    def set_aside(self, relative: str, why: str) -> None:
        """Take a file, or what lies in its place, out of the store; see `data.store.aside`.

        Raises StoreError: the store is read-only, or the path leaves it.
        """
        self.backend.set_aside(relative, why)

    def set_unit_aside(self, key: str, why: str) -> None:
        """Take a unit out of the store, so that it is computed again: its manifest, its parts, and those of
        its media that are damaged.

        Raises StoreError: the store is read-only.
        """
        path = self._find(key)
        with contextlib.suppress(Damaged):
            manifest = self.manifest(key)
            for item in manifest.media if manifest is not None else ():
                if self.fault(item) is not None:
                    self.set_aside(item.path, why)
        with self.lock(segments.LOCK):
            segments.drop(self, key)
        for one in () if path is None else (str(path), _parts_folder(path)):  # in this order, as in `forget`
            self.set_aside(one, why)

    # -- reading -------------------------------------------------------------------------------------------

    def manifest(self, key: str, stage: str | None = None) -> Manifest | None:
        """The manifest of `key`, or None if that question has no answer yet; `stage`, if known, is quicker.

        Raises:
            Damaged: the manifest was changed after it was written.
            StoreError: it is of a newer version, or may not be read.
        """
        path = self._find(key, stage)
        if path is not None:
            return self.manifest_at(path)
        return next(Covering(self, [key]).manifests([key]), None)

    def look_up(
        self, places: Iterable[tuple[str | None, str]], level: Literal["hash", "size"] | None = None
    ) -> Iterator[tuple[str, Manifest | str]]:
        """Look many units up at once: of each, once and in no order, its key and what is found.

        Args:
            places: stage and key of each; without its stage (None) one is found less quickly.
            level: how its files are looked at, as in `verify`; None: not at all.

        Returns:
            Beside each key the manifest; or why the unit does not count as there: `NOT_THERE`, or what is
            damaged.

        Raises:
            StoreError: a manifest is of a newer version, or may not be read.
        """
        asked = {key: stage for stage, key in places}
        covering = Covering(self, asked)
        left = dict.fromkeys(asked, NOT_THERE)  # but for what only a segment has
        rest = iter(asked.items())
        while some := list(itertools.islice(rest, _AT_ONCE)):
            known = self.backend.sizes([_manifest_path(stage, key) for key, stage in some if stage])
            found = []
            for key, stage in some:
                place = _manifest_path(stage or "", key)
                try:
                    path = PurePosixPath(place) if place in known else self._find(key, stage)
                    if path is None:
                        continue
                    found.append(self.manifest_at(path))
                except Damaged as error:
                    yield key, error.what
                del left[key]
            yield from self._looked_at(found, level, covering)
        covered = covering.manifests(tuple(left))
        while some_covered := list(itertools.islice(covered, _AT_ONCE)):
            for manifest in some_covered:
                left.pop(manifest.key, None)
            yield from self._looked_at(some_covered, level, covering)
        yield from left.items()

    def verify(self, key: str, level: Literal["hash", "size"] = "hash") -> str | None:
        """None if the unit is whole, else why it is not.

        Args:
            key: the unit.
            level: "hash" reads every part and media file and compares SHA-256; "size" compares sizes only.

        Raises:
            StoreError: the manifest is of a newer version; it is not ours to judge.
        """
        ((_, found),) = self.look_up([(None, key)], level)
        return found if isinstance(found, str) else None

    def fault(
        self,
        item: Part | Media,
        level: Literal["hash", "size"] = "hash",
        covering: Covering | None = None,
        size: int | None = None,
    ) -> str | None:
        """None if one file of a unit is whole, else why it is not.

        Args:
            item: the file.
            level: as in `verify`.
            covering: of the unit and others, where the files of many are looked at.
            size: what the file has, if that was asked a moment ago.
        """
        kind = "part" if isinstance(item, Part) else "media"
        try:
            size = self.backend.size(item.path) if size is None else size
            if size != item.bytes:
                return f"size of {kind} {item.path} differs ({size} bytes, not {item.bytes})"
            if level == "hash" and self.backend.sha256(item.path) != item.sha256:
                return f"sha256 of {kind} {item.path} differs"
        except FileNotFoundError:
            if isinstance(item, Part) and (covering or Covering(self, [item.unit])).holds(item):
                return None
            return f"missing {kind} {item.path}"
        except OSError as error:
            return f"unreadable {kind} {item.path}: {error.strerror}"
        return None

    def _looked_at(
        self, manifests: Sequence[Manifest], level: Literal["hash", "size"] | None, covering: Covering
    ) -> Iterator[tuple[str, Manifest | str]]:
        sizes = self.backend.sizes([item.path for one in manifests for item in one.files]) if level else {}
        for one in manifests:
            faults = (self.fault(item, level, covering, sizes.get(item.path)) for item in one.files if level)
            yield one.key, next((fault for fault in faults if fault is not None), one)

    def read(self, key: str, table: str) -> list[Any]:
        """Rows of one table of one unit, in key order; none if the unit has no such table.

        Raises Damaged: the unit is not there, or a part is missing or was changed.
        """
        return from_table(table, self.arrow([key], table))

    def arrow(self, keys: Iterable[str], table: str) -> pa.Table:
        """One table of several units as Arrow, units in the order of `keys`. Raises as `read` does."""
        return rows.table_of(table, self.batches(keys, table))

    def batches(self, keys: Iterable[str], table: str, columns: Sequence[str] = ()) -> Iterator[pa.Table]:
        """The same unit by unit, or some columns of it. Raises as `read` does."""
        return rows.batches(self, keys, table, columns)

    def manifests(self, stage: str | None = None) -> list[Manifest]:
        """Every committed unit (of one stage), sorted by key. Raises Damaged if a manifest was changed."""
        found = [self.manifest_at(path) for path in self.manifest_files(stage)]
        return segments.with_covered(self, stage, found)

    def manifest_files(self, stage: str | None = None) -> list[PurePosixPath]:
        """Where the manifests lie (of one stage) below the store, sorted by key; unread."""
        found = map(PurePosixPath, self.backend.find(f"manifests/{stage or '*'}/*.json"))
        return sorted(found, key=lambda path: path.name)

    def manifest_at(self, path: PurePosixPath) -> Manifest:
        """The manifest of a file that `manifest_files` named. Raises as `manifest`."""
        return read_manifest(self.backend, path, self.remedy)

    # -- working space ---------------------------------------------------------------------------------------

    def scratch(self, key: str) -> Path:
        """A folder for the checkpoints of unit `key` while it is computed; nothing else reads it."""
        root = self.backend.workspace
        path = root / "scratch" / _checked(key)
        if os.path.lexists(path) and not is_folder(path):
            set_aside(root, path, "it is no folder")
        with storage_errors(path):
            make_folder(path)
        return path

    def clear_scratch(self, key: str) -> None:
        """Remove the unit's checkpoints, once it is committed."""
        path = self.backend.workspace / "scratch" / _checked(key)
        with storage_errors(path):
            if is_folder(path):
                shutil.rmtree(path)

    # -- inside --------------------------------------------------------------------------------------------

    def _keep(self, item: Media | Part, data: bytes) -> None:
        """Write a content-named file unless its bytes are there; a damaged copy is replaced."""
        level: Literal["hash", "size"] = "hash" if self.backend.rots else "size"
        fault = self.fault(item, level)
        held = fault is not None and self.backend.taken(item.path)
        if held:  # by another writer, perhaps, who was a moment later than our look
            fault = self.fault(item, level)
        # Young again, so that a garbage collector does not take it before the manifest names it.
        if fault is None and self.backend.keep(item.path, data):
            return
        if held and fault is not None:
            self.set_aside(item.path, fault)
        self.backend.put(item.path, data)

    def write_part(self, stage: str, key: str, name: str, count: int, data: bytes) -> Part:
        """Keep a Parquet file of a unit that is about to be committed. Raises as `write_media`."""
        sha = bytes_digest(data)
        path = f"parts/{stage}/{key[:2]}/{key}/{name}-{sha[:12]}.parquet"
        part = Part(name, path, count, sha, len(data))
        self._keep(part, data)
        failpoint("store.after_part")
        return part

    def read_part(self, part: Part) -> bytes:
        """Bytes of a part, checked against its digest. Raises Damaged: it is missing or was changed."""
        return self._read_bytes(part.path, part.sha256)

    def _read_bytes(self, relative: str, sha256: str) -> bytes:
        where = self.backend.where(relative)
        try:
            data = self.backend.read(relative)
        except OSError as error:
            raise Damaged(f"cannot read {where}: {error.strerror}", self.remedy) from error
        if bytes_digest(data) != sha256:
            raise Damaged(f"{where} was changed after it was written (sha256 differs)", self.remedy)
        return data

    def without_file(self, keys: Iterable[str]) -> list[str]:
        """Those of the keys whose units have no manifest file: they are not there, or in a segment."""
        return [key for key in keys if self._find(key) is None]

    def _find(self, key: str, stage: str | None = None) -> PurePosixPath | None:
        name = f"{_checked(key)}.json"
        for folder in self.backend.names("manifests") if stage is None else [stage]:
            path = f"manifests/{folder}/{name}"
            if self.backend.taken(path):
                return PurePosixPath(path)
        return None

    @property
    def remedy(self) -> str:
        """What to do about a damaged file."""
        return (
            f"`{self.heal_command}` sets aside what is damaged; the command that made it then makes it again"
        )


def _manifest_path(stage: str, key: str) -> str:
    return f"manifests/{stage}/{key}.json"


def _parts_folder(manifest: PurePosixPath) -> str:
    """Where the parts of a manifest's unit lie."""
    return f"parts/{manifest.parent.name}/{manifest.stem[:2]}/{manifest.stem}"


def _checked(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise StoreError(f"{key!r} is not a key: a key is 64 hexadecimal digits")
    return key
