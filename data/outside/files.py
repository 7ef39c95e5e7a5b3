"""Files that somebody brings: opened only where they are plain files inside the folder that was named."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Final

# Of a file in bytes: hours of video at the rate of a camera.
LARGEST: Final = 16 << 30
_KINDS: Final = (
    (stat.S_ISLNK, "a link, which is not followed: name the file itself"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@dataclass(frozen=True)
class Source:
    """A file as it was found.

    Attributes:
        path: as the table names it.
        sha256: of its bytes; "" where it was not read.
        refused: why it was not read; "" where it was.
    """

    path: str
    sha256: str = ""
    refused: str = ""


@contextmanager
def opened(root: Path, path: str) -> Iterator[BufferedReader]:
    """A plain file, open for reading.

    Args:
        root: folder that a relative path is below.
        path: as a table names it; an absolute one is taken as it is, for it was written on purpose.

    Raises:
        ValueError: why it is not read: it is missing, leaves `root`, is a link or no plain file, is empty or
            larger than `LARGEST`.
        OSError: it cannot be read.
    """
    if "\0" in path:
        raise ValueError("its name holds the character NUL")
    place = root / path
    try:
        kind = os.lstat(place).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError("there is no such file") from None
    for is_it, called in _KINDS:
        if is_it(kind):
            raise ValueError(f"it is {called}")
    if not Path(path).is_absolute() and not place.resolve().is_relative_to(root.resolve()):
        raise ValueError("it leaves the folder: name it by its absolute path if that is meant")
    # What was a file a moment ago may be a link or a pipe now: neither is followed, or waited for.
    handle = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb") as file:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise ValueError("it is no plain file")
        if not about.st_size:
            raise ValueError("it is empty")
        if about.st_size > LARGEST:
            raise ValueError(f"it has {about.st_size:,} bytes, more than {LARGEST:,}: cut it first")
        yield file


def read_source(root: Path, path: str) -> Source:
    """A file and its digest, or why it is not read; see `opened`."""
    try:
        with opened(root, path) as file:
            return Source(path, hashlib.file_digest(file, "sha256").hexdigest())
    except ValueError as reason:
        return Source(path, refused=str(reason))
    except OSError as error:
        return Source(path, refused=f"it cannot be read: {error.strerror or error}")
