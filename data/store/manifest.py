"""Manifest: the immutable JSON file that says a unit of work is done, and what it holds.

Its bytes are a function of the question and the answer alone: no time, host, process or run id.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar, Final

from pydantic import ConfigDict, TypeAdapter

from data.errors import StoreError
from data.json_text import parse_json
from data.keys import bytes_digest, digest, parsed_digest
from data.records import SCHEMA_VERSION

if TYPE_CHECKING:
    from data.store.backend import Backend

_STRICT: Final = ConfigDict(extra="forbid")


class Damaged(StoreError):
    """A file's bytes are not what was committed, or it is gone; its unit counts as not done.

    Attributes:
        what: which file, and what is wrong with it; the message adds what to do.
    """

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(f"{what}. {remedy}" if remedy else what)
        self.what = what


@dataclass(frozen=True, slots=True)
class Media:
    """A file kept under the name of its content: path relative to the store root, SHA-256, size in bytes."""

    __pydantic_config__: ClassVar = _STRICT

    path: str
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Part:
    """A Parquet file of one table: path relative to the store root, rows, SHA-256, size in bytes."""

    __pydantic_config__: ClassVar = _STRICT

    table: str
    path: str
    rows: int
    sha256: str
    bytes: int

    @property
    def unit(self) -> str:
        """Key of the unit that it is of."""
        return self.path.split("/")[3]


@dataclass(frozen=True)
class Manifest:
    """A committed unit of work.

    Attributes:
        key: digest of `question`.
        stage: the stage that asked, for example "generate".
        question: everything that decides the answer: stage, its version, settings that matter, input digests.
        parts: one Parquet file a table.
        media: every file that the rows name.
        parents: keys of the manifests that were read.
        info: what the stage says of its work, for example {"failed": 0}; "counts" in the file.
        schema_version: version of the row schemas.
        digest: SHA-256 of the committed bytes; what the questions of later stages name.
    """

    __pydantic_config__: ClassVar = _STRICT

    key: str
    stage: str
    question: dict[str, Any]
    parts: tuple[Part, ...]
    media: tuple[Media, ...]
    parents: tuple[str, ...]
    info: dict[str, Any]
    schema_version: int = SCHEMA_VERSION

    @cached_property
    def digest(self) -> str:
        return bytes_digest(self.to_bytes())

    @property
    def files(self) -> tuple[Part | Media, ...]:
        """Every file this manifest reaches."""
        return (*self.parts, *self.media)

    def part(self, table: str) -> Part | None:
        """The part of `table`, or None if the unit has no such table."""
        return next((part for part in self.parts if part.table == table), None)

    def to_bytes(self) -> bytes:
        """The committed form: readable JSON, closed by a digest of all the rest."""
        body = dataclasses.asdict(self)
        body["counts"] = body.pop("info")
        return (json.dumps(body | {"check": digest(body)}, sort_keys=True, indent=1) + "\n").encode("ascii")

    @staticmethod
    def from_bytes(data: bytes, where: str) -> Manifest:
        """Read a manifest back.

        Raises:
            Damaged: the bytes are not a manifest, or were changed.
            StoreError: they come from a newer version.
        """
        try:
            body = parse_json(data)
            check = body.pop("check")
            version = body["schema_version"]
            if version > SCHEMA_VERSION:
                raise StoreError(
                    f"{where} has schema version {version}, this program reads up to {SCHEMA_VERSION}: "
                    "use the newer vidloop that wrote it"
                )
            if check != parsed_digest(body) or body["key"] != parsed_digest(body["question"]):
                raise Damaged(f"{where} was changed after it was written")
            body["info"] = body.pop("counts")
            found = _MANIFEST.validate_python(body)
            vars(found)["digest"] = bytes_digest(data)  # what `to_bytes` would have to be made for
            return found
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise Damaged(f"{where} is not a readable manifest ({error})") from error


_MANIFEST: Final = TypeAdapter(Manifest)


def forbidden(where: str, error: PermissionError) -> StoreError:
    """What to say of a file that is there and that this user, or these credentials, may not read."""
    remedy = (
        "let these credentials read it"
        if "://" in where
        else f"make it readable for this user (`chmod u+r {shlex.quote(where)}`)"
    )
    return StoreError(f"cannot read {where}: {error.strerror or error}; {remedy}")


def read_manifest(backend: Backend, path: PurePosixPath, remedy: str) -> Manifest:
    """The manifest in a file of a store.

    Args:
        backend: where it lies.
        path: manifests/<stage>/<key>.json.
        remedy: what to do about a damaged one.

    Raises:
        Damaged: it was changed after it was written, or cannot be read.
        StoreError: it is of a newer version, or may not be read.
    """
    name = str(path)
    where = backend.where(name)
    try:
        found = Manifest.from_bytes(backend.read(name), where)
    except Damaged as error:
        raise Damaged(error.what, remedy) from error
    except PermissionError as error:
        raise forbidden(where, error) from error
    except OSError as error:
        raise Damaged(f"cannot read {where}: {error.strerror}", remedy) from error
    if (found.key, found.stage) != (path.stem, path.parent.name):
        raise Damaged(f"{where} is the manifest of another unit", remedy)
    return found
