"""Files of labels: which formats there are, and what a row of each says.

    own                    a row a vote, in the columns below: CSV, JSON Lines or Parquet
    videogen-rewardbench   pairs of VideoGen-RewardBench (arXiv 2501.13918): path_A, path_B, and of VQ, MQ, TA
                           and Overall "A", "B" or "same"
    flow-factory           Flow-Factory's "Offline V2" (its guidance/datasets.md): JSON Lines with
                           schema_version 2 and a supervision, a preference or a demonstration
    videophy2              marks of VideoPhy-2 (arXiv 2503.06800, its dataset card): video_url, sa and pc from
                           1 to 5

A clip is named by its id, by a video file (from the folder of the table), or by the SHA-256 of one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import unquote, urlparse

from data.errors import DataError
from data.explain import nearest
from data.labels import KINDS, Kind, Question
from data.parquet_files import read_columns
from data.prompt_files import READERS, is_missing

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Named:
    """How a file names a clip: one of these is not ""."""

    clip_id: str = ""
    video: str = ""
    sha256: str = ""

    def __str__(self) -> str:
        return self.clip_id or self.video or self.sha256


@dataclass(frozen=True)
class Said:
    """What a row says; `more`: fields of `data.labels.Vote`, of which `shown_left` is first or second."""

    question: Question
    clip: Named
    answer: str
    rater: str
    other: Named | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


_WAYS: Final = ("clip_id", "video", "sha256")
_OWN: Final = (
    *_WAYS, *(f"other_{way}" for way in _WAYS), "question", "words", "kind", "low", "high", "answer", "rater",
    "session", "at", "seconds", "plays", "shown_left", "gold", "repeat",
)  # fmt: skip
# What else people write where they mean the same.
_ALSO: Final = {"value": "answer", "label": "answer", "time": "at"}
_SAME_ANSWER: Final = {
    "yes_no": {"1": "yes", "true": "yes", "0": "no", "false": "no"},
    "pair": {"1": "first", "2": "second", "a": "first", "b": "second", "same": "tie", "both bad": "both_bad"},
    "grade": {},
}


def read(path: Path, format_: str) -> Iterator[tuple[int, Row]]:
    """The rows of a file, each with its line (of Parquet its row): the values that are there, by column.

    Raises DataError: the file cannot be read, or is not of a kind that the format comes in.
    """
    endings = FORMATS[format_].endings
    if path.suffix.lower() not in endings:
        raise DataError(f"{path}: labels of format {format_} come in files {', '.join(endings)}")
    try:
        if path.suffix.lower() == ".parquet":
            columns = read_columns(path, lambda name: True)
            rows = zip(*(values for _, values in columns), strict=True)
            names = [name for name, _ in columns]
            found = [(number, list(zip(names, row, strict=True))) for number, row in enumerate(rows, 1)]
        else:
            found = [(line, list(fields)) for line, fields in READERS[path.suffix.lower()](path)]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"labels {path}: cannot be read: {error}") from None
    for line, fields in found:
        names = [name.strip() for name, _ in fields]
        if double := next((name for name in names if names.count(name) > 1), None):
            raise DataError(f"{path}:{line}: two columns are called {double!r}: rename or remove one")
        yield (
            line,
            {
                name: value.strip() if isinstance(value, str) else value
                for name, (_, value) in zip(names, fields, strict=True)
                if not is_missing(value)
            },
        )


def own(row: Row) -> Iterator[Said]:
    """A row in our own columns."""
    row = {_ALSO.get(name, name): value for name, value in row.items()}
    for name in row:
        if name not in _OWN:
            raise DataError(f"there is no column {name!r}{nearest(name, _OWN)}")
    clip, other = _named(row, ""), _named(row, "other_")
    if clip is None:
        raise DataError("no clip: give clip_id, video or sha256")
    graded = "low" in row or "high" in row
    kind: Kind = row.get("kind", "pair" if other is not None else "grade" if graded else "yes_no")
    if kind not in KINDS:
        raise DataError(f"kind {kind!r} is not one of {', '.join(KINDS)}")
    bounds = _number(row, "low", 0.0), _number(row, "high", 1.0)
    question = Question(_text(row, "question"), _text(row, "words", ""), kind, *bounds)
    more: dict[str, Any] = {name: _text(row, name) for name in ("session", "at") if name in row}
    more |= {name: _number(row, name) for name in ("seconds",) if name in row}
    more |= {name: _count(row, name) for name in ("plays", "repeat") if name in row}
    if "gold" in row:
        more["gold"] = _answer(kind, row["gold"])
    if "shown_left" in row:
        side = _text(row, "shown_left")
        if kind != "pair" or side not in ("first", "second"):
            raise DataError(f"shown_left {side!r}: of a pair, first or second")
        more["shown_left"] = side
    if "answer" not in row:
        raise DataError("no answer: give one, or skip")
    yield Said(question, clip, _answer(kind, row["answer"]), _text(row, "rater"), other, more)


# Questions of others, in their papers' words for what was rated.
_REWARDBENCH: Final = {
    "VQ": Question("VQ", "Visual quality", "pair"),
    "MQ": Question("MQ", "Motion quality", "pair"),
    "TA": Question("TA", "Text alignment", "pair"),
    "Overall": Question("Overall", "Overall", "pair"),
}
_VIDEOPHY2: Final = {
    "sa": Question("sa", "Semantic adherence", "grade", 1, 5),
    "pc": Question("pc", "Physical commonsense", "grade", 1, 5),
}
_PREFERENCE: Final = Question("preference", "", "pair")
_DEMONSTRATION: Final = Question("demonstration", "", "yes_no")
_SIDES: Final = {"A": "first", "B": "second", "same": "tie"}


def videogen_rewardbench(row: Row) -> Iterator[Said]:
    """A pair of VideoGen-RewardBench: a vote for each of its questions that has an answer."""
    first, second = Named(video=_text(row, "path_A")), Named(video=_text(row, "path_B"))
    for name, question in _REWARDBENCH.items():
        if name in row:
            said = _text(row, name)
            if said not in _SIDES:
                raise DataError(f"{name} {said!r} is not one of {', '.join(_SIDES)}")
            yield Said(question, first, _SIDES[said], "videogen-rewardbench", second)


def flow_factory(row: Row) -> Iterator[Said]:
    """A record of Flow-Factory's Offline V2: the better of two clips, or one that shows how it should be."""
    said = _object(row)
    if said.get("schema_version") != 2:
        raise DataError(f"schema_version {said.get('schema_version')!r}, must be 2")
    supervision = said.get("supervision")
    metadata = said.get("metadata")
    annotator = metadata.get("annotator") if isinstance(metadata, dict) else None
    named = isinstance(annotator, str) and annotator.strip()
    rater = _text({"annotator": annotator}, "annotator") if named else "flow-factory"
    kind = supervision.get("type") if isinstance(supervision, dict) else None
    if kind == "preference":
        chosen, rejected = (_media(supervision, side) for side in ("chosen", "rejected"))
        yield Said(_PREFERENCE, chosen, "first", rater, rejected)
    elif kind == "demonstration":
        yield Said(_DEMONSTRATION, _media(supervision, "target"), "yes", rater)
    else:
        raise DataError(f"supervision.type {kind!r}, must be preference or demonstration")


def videophy2(row: Row) -> Iterator[Said]:
    """Marks of a video of VideoPhy-2; the file has the name that ends its address."""
    named = _named(row, "")
    if named is None:
        try:
            name = PurePosixPath(unquote(urlparse(_text(row, "video_url")).path)).name
        except ValueError:
            name = ""
        if not name:
            raise DataError(f"video_url {row['video_url']!r} ends in no file's name")
        named = Named(video=name)
    for name, question in _VIDEOPHY2.items():
        if name in row:
            yield Said(question, named, f"{_number(row, name):g}", "videophy2")


@dataclass(frozen=True)
class Format:
    """A format: what a row of it says, and in which kinds of files it comes."""

    votes: Callable[[Row], Iterator[Said]]
    endings: tuple[str, ...] = (".csv", ".jsonl", ".parquet")


FORMATS: Final[Mapping[str, Format]] = {
    "own": Format(own),
    "videogen-rewardbench": Format(videogen_rewardbench),
    "flow-factory": Format(flow_factory, (".jsonl",)),
    "videophy2": Format(videophy2),
}


def _named(row: Row, before: str) -> Named | None:
    given = {way: _text(row, before + way) for way in _WAYS if before + way in row}
    if len(given) > 1:
        raise DataError(f"{' and '.join(before + way for way in given)}: name a clip by one of them")
    return Named(**given) if given else None


def _media(supervision: Mapping[str, Any], side: str) -> Named:
    candidate = supervision.get(side)
    media = candidate.get("media") if isinstance(candidate, dict) else None
    videos = [one for one in media if isinstance(one, dict)] if isinstance(media, list) else []
    videos = [one for one in videos if one.get("type") == "video"]
    if len(videos) != 1 or not isinstance(videos[0].get("path"), str) or not videos[0]["path"]:
        raise DataError(f"supervision.{side}.media has {len(videos)} videos, must have one with a path")
    return Named(video=videos[0]["path"])


def _object(value: Any) -> Any:
    """Objects of JSON as dicts: the reader gives pairs, so that a name that is there twice is seen."""
    if isinstance(value, Mapping):
        return {name: _object(one) for name, one in value.items()}
    if isinstance(value, tuple):
        found = {name: _object(one) for name, one in value}
        if len(found) != len(value):
            raise DataError(f"an object with two fields of one name: {', '.join(name for name, _ in value)}")
        return found
    return [_object(one) for one in value] if isinstance(value, list) else value


def _answer(kind: Kind, said: object) -> str:
    if isinstance(said, float) and said.is_integer():
        said = int(said)
    text = str(int(said) if isinstance(said, bool) else said).strip().lower()
    return _SAME_ANSWER[kind].get(text, text)


_NEEDED: Final = object()
_MOST: Final = 10**9


def _text(row: Row, name: str, default: object = _NEEDED) -> str:
    value = row.get(name, default)
    if value is _NEEDED:
        raise DataError(f"no {name}: it must be said")
    if isinstance(value, bool | float) or not isinstance(value, str | int):
        raise DataError(f"{name} {value!r} is no text")
    text = str(value)
    if text != text.encode(errors="replace").decode():
        raise DataError(f"{name} {text!r} is no text in UTF-8")
    return text


def _number(row: Row, name: str, default: float | None = None) -> float:
    value = row.get(name, default)
    try:
        if not isinstance(value, str | int | float) or isinstance(value, bool):
            raise ValueError
        found = float(value)
    except (ValueError, OverflowError):
        raise DataError(f"{name} {value!r} is no number") from None
    if not math.isfinite(found):
        raise DataError(f"{name} {value!r} is not finite")
    return found


def _count(row: Row, name: str) -> int:
    found = _number(row, name)
    if found != int(found) or abs(found) > _MOST:
        raise DataError(f"{name} {row[name]!r} is no whole number that counts something")
    return int(found)
