"""What an mp4 file's header claims: a few bytes in which FFmpeg would believe, and set aside gigabytes."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import BinaryIO, Final

# Where a header counts: samples (ISO/IEC 14496-12, 8.7.3), runs of them in a fragment (8.8.8), and entries of
# its tables (8.5.2 to 8.7.6). (name, bytes from it to the count)
_COUNTS = {
    **dict.fromkeys((b"stsz", b"stz2"), 12),
    **dict.fromkeys(
        (b"trun", b"stsd", b"dref", b"stts", b"ctts", b"stsc", b"stco", b"co64", b"stss", b"elst"), 8
    ),
}
# Bytes and boxes of a header: an hour of video takes a few megabytes, in fragments some thousand boxes.
_LARGEST: Final = 64 << 20
_MOST_BOXES: Final = 200_000
_NAMES = re.compile(b"|".join(_COUNTS))


def claimed(data: bytes) -> int:
    """How many samples (pictures, mostly) and entries of tables an mp4 header counts, all of them.

    In a whole file that is less than its bytes: a sample has one at least, an entry four. Counts stand where
    FFmpeg would look for them, which is anywhere but in the media themselves.
    """
    return sum(
        struct.unpack_from(">I", data, found.start() + _COUNTS[found[0]])[0]
        for begin, end in _headers(data)
        for found in _NAMES.finditer(data, begin, end)
        if found.start() + _COUNTS[found[0]] + 4 <= len(data)
    )


def header(file: BinaryIO) -> bytes:
    """The boxes of a file that are no `mdat`, one after the other.

    Raises ValueError: they are larger than a header is.
    """
    found = bytearray()
    size = file.seek(0, 2)
    place = boxes = 0
    while place < size:
        boxes += 1
        if boxes > _MOST_BOXES:
            raise ValueError(f"its header has more than {_MOST_BOXES:,} boxes")
        file.seek(place)
        head = file.read(16)
        length, name = struct.unpack(">I4s", head[:8].ljust(8, b"\0"))
        if length == 1 and len(head) == 16:
            (length,) = struct.unpack(">Q", head[8:])
        length = size - place if length < 8 else min(length, size - place)
        if name != b"mdat":
            if len(found) + length > _LARGEST:
                raise ValueError(f"its header has more than {_LARGEST:,} bytes")
            file.seek(place)
            found += file.read(length)
        place += length
    return bytes(found)


def _headers(data: bytes) -> Iterator[tuple[int, int]]:
    """Begin and end of each box at the top that is no `mdat`."""
    place = 0
    while place + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, place)
        if size == 1 and place + 16 <= len(data):
            (size,) = struct.unpack_from(">Q", data, place + 8)
        # 0: to the end. What is too short to be a box is not skipped, but looked through.
        end = len(data) if size < 8 else min(place + size, len(data))
        if name != b"mdat":
            yield place, end
        place = end
