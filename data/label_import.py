"""Labels from a file into a store: all are held against its clips and labels before one is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from data import labels
from data.errors import DataError
from data.explain import nearest
from data.keys import file_digest
from data.label_files import FORMATS, Named, Said, read
from data.labels import Vote
from data.queries import run_query
from data.records import Label
from data.store import Store

_SHOWN: Final = 10
# A clip from outside goes by the file that it was, too.
_VIDEOS: Final = """
SELECT clip_id, video_sha256 FROM clips
UNION SELECT clip_id, source_sha256 FROM imports WHERE clip_id IS NOT NULL ORDER BY ALL
"""
_AGAIN: Final = "; if it was asked again, say so in column repeat (1, 2, ...)"


@dataclass(frozen=True)
class Imported:
    """What a file brought.

    Attributes:
        new: labels that are in the store now and were not.
        known: votes that were there already.
        bad: why each of the others was left out, with its line.
    """

    new: tuple[Label, ...]
    known: int
    bad: tuple[str, ...]


def import_labels(store: Store, path: Path, format_: str = "own", skip_bad: bool = False) -> Imported:
    """Bring the labels of a file into a store: all of them, or none.

    Args:
        store: that holds the clips.
        path: the file.
        format_: one of `data.label_files.FORMATS`.
        skip_bad: keep those that are right, and say why each of the others is not.

    Raises:
        DataError: the file cannot be read, or, unless `skip_bad`, votes are wrong: of clips that the store
            does not have, no answers to their question, or of a rater who said it already (here or in the
            store) and something else now. The message names the lines.
    """
    if format_ not in FORMATS:
        raise DataError(f"there is no format {format_!r} of labels{nearest(format_, FORMATS)}")
    try:
        source = file_digest(path)
    except OSError as error:
        raise DataError(f"labels {path}: cannot be read: {error.strerror}") from None
    reader = _Reader(store, path, source)
    bad: list[str] = []
    for line, row in read(path, format_):
        try:
            for said in FORMATS[format_].votes(row):
                reader.take(line, said)
        except DataError as error:
            bad.append(f"line {line}: {error}")
    if bad and not skip_bad:
        remedy = "Nothing was imported: correct them, or leave them out with --skip-bad"
        raise DataError(f"labels {path}: {told(bad)}\n{remedy}")
    if reader.new:
        labels.commit(store, list(reader.new.values()))
    return Imported(tuple(reader.new.values()), reader.known, tuple(bad))


def told(bad: Sequence[str]) -> str:
    """The first of many faults, a line each."""
    more = f"\n... and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
    return f"{len(bad)} of its votes are wrong\n" + "\n".join(bad[:_SHOWN]) + more


class _Reader:
    """Votes of one file as labels of one store's clips."""

    def __init__(self, store: Store, path: Path, source: str) -> None:
        self._folder, self._source = path.parent, source
        self._clips: set[str] = set()
        self._by_video: dict[str, list[str]] = {}
        for clip, sha256 in run_query(store, _VIDEOS)[1]:
            self._clips.add(clip)
            self._by_video.setdefault(sha256, []).append(clip)
        self._there = {row.label_id: row for row in labels.every(store)}
        self._lines: dict[str, int] = {}
        self._digests: dict[str, str] = {}
        self.new: dict[str, Label] = {}
        self.known = 0

    def take(self, line: int, said: Said) -> None:
        """Add a vote. Raises DataError: it is wrong, and was not added."""
        clips = [self._clip(said.clip)] + ([] if said.other is None else [self._clip(said.other)])
        more = dict(said.more)
        if side := more.get("shown_left"):
            more["shown_left"] = clips[side != "first"]
        other = clips[1] if len(clips) > 1 else None
        vote = Vote(clip_id=clips[0], answer=said.answer, rater=said.rater, other_clip_id=other, **more)
        row = labels.label(said.question, vote, self._source)
        about = f"{row.question} of {' and '.join(clips)}"
        first = self._lines.setdefault(row.label_id, line)
        if row.label_id in self.new or first != line:
            raise DataError(f"rater {row.rater} answered {about} in line {first} already{_AGAIN}")
        before = self._there.get(row.label_id)
        if before is None:
            self.new[row.label_id] = row
        elif labels.said(before) == labels.said(row):
            self.known += 1
        else:
            raise DataError(f"rater {row.rater} answered {about} with {before.answer} before{_AGAIN}")

    def _clip(self, named: Named) -> str:
        if named.clip_id:
            if named.clip_id not in self._clips:
                raise DataError(f"the store has no clip {named.clip_id!r}")
            return named.clip_id
        sha256 = named.sha256.lower() or self._sha256(named.video)
        found = self._by_video.get(sha256, [])
        if not found:
            raise DataError(f"the store has no clip of the video {named} (SHA-256 {sha256[:12]}...)")
        if len(found) > 1:
            raise DataError(f"{len(found)} clips have the video {named}: say clip_id ({found[0]}, ...)")
        return found[0]

    def _sha256(self, video: str) -> str:
        if video not in self._digests:
            try:
                self._digests[video] = file_digest(self._folder / video)
            except (OSError, ValueError) as error:  # a name may hold what no file system takes
                raise DataError(f"video {video!r} cannot be read from {self._folder}: {error}") from None
        return self._digests[video]
