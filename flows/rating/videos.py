"""Clips as every browser plays them, and so that nothing about a file tells which policy it is of.

Where all clips of a session are H.264 in yuv420p, the stored files are served. Else all are copied once, so
that the two sides of a pair have come the same way.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Final

from data.store import Store
from flows.rating.database import ENDING, Database
from flows.rating.items import Shown

# Small clips are enlarged to about this many pixels, so that 4:2:0 does not smear their colours.
_SIDE: Final = 256


class Videos:
    """The files of a session's clips, each copied when it is first asked for."""

    def __init__(self, database: Database, store: Store) -> None:
        clips = [clip for item in database.items.values() for clip in item.clips]
        self._plain = all("264" in clip.codec and "yuv420p" in clip.codec.split() for clip in clips)
        self._folder = database.path.with_suffix(f"{ENDING}-videos")
        self._store, self._one = store, threading.Lock()
        self._checked: set[str] = set()

    def file(self, clip: Shown) -> Path:
        """A file of this machine to be read.

        Raises:
            StoreError: the stored video is missing or was changed.
            VideoError: it cannot be decoded.
        """
        if self._plain:
            if clip.video_path not in self._checked:
                self._store.read_media(clip.video_path)
                self._checked.add(clip.video_path)
            return self._store.local(clip.video_path)
        copy = self._folder / f"{clip.video_sha256}.mp4"
        if not copy.is_file():
            with self._one:  # one at a time: decoding takes a core
                if not copy.is_file():
                    self._write(clip, copy)
        return copy

    def _write(self, clip: Shown, copy: Path) -> None:
        from data.video import decode_mp4, web_copy

        frames, fps = decode_mp4(self._store.read_media(clip.video_path))
        data = web_copy(frames, fps, max(1, _SIDE // max(frames.shape[1:3])))
        self._folder.mkdir(exist_ok=True)
        unfinished = copy.with_suffix(".new")
        unfinished.write_bytes(data)
        os.replace(unfinished, copy)
