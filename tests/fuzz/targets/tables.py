"""Tables that people bring: prompts in four formats, labels in two, votes in four, clips from outside."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as parquet

from data.errors import UserError
from data.label_files import FORMATS, read
from data.outside.table import read_table
from data.prompts import load_laws, load_prompts
from tasks.calibrate import read_labels
from tests.fuzz.target import Target, file_of

_REAL = Path("data/real_prompts/real-train.jsonl")
_WORDS = ("text", "prompt", "id", "prompt_id", "category", "laws", "split", "nan", "null", "<NA>", "\ufeff", "\u200b",
          '"', '""', "\r\n", "1.0", "1e400", "\\ud800", "# ", "[[[[", "{")  # fmt: skip


def _prompts(ending: str, data: bytes) -> None:
    with file_of(data, f"prompts.{ending}") as path:
        load_prompts(path)
        load_laws(path)


def _labels(ending: str, data: bytes) -> None:
    with file_of(data, f"labels.{ending}") as path:
        read_labels(path)


def _votes(ending: str, data: bytes) -> None:
    with file_of(data, f"votes.{ending}") as path:
        for name, kind in FORMATS.items():
            if f".{ending}" in kind.endings:
                for _, row in read(path, name):
                    # A row that is no vote is told by its line; the rows after it are read.
                    with contextlib.suppress(UserError):
                        list(kind.votes(row))


def _clips(data: bytes) -> None:
    with file_of(data, "clips.csv") as path:
        read_table(path)


def _texts(lines: list[bytes]) -> Callable[[], Iterator[bytes]]:
    return lambda: iter(lines)


def _real() -> Iterator[bytes]:
    yield b"".join((Path(__file__).parents[3] / _REAL).read_bytes().splitlines(keepends=True)[:4])
    yield b'{"prompt": "a ball falls", "id": 7, "laws": ["gravity"], "category": "falling"}\n{"text": "b", "id": 8}'


def _in_parquet(columns: dict[str, Any], **how: Any) -> bytes:
    sink = io.BytesIO()
    parquet.write_table(pa.table(columns), sink, **how)
    return sink.getvalue()


def _parquet_prompts() -> Iterator[bytes]:
    columns: dict[str, Any] = {"text": ["a ball falls", "a cup breaks"], "id": [1.0, 2.0]}
    yield _in_parquet(columns)
    yield _in_parquet(columns | {"laws": [["gravity"], None]}, compression="zstd", use_dictionary=False)
    yield _in_parquet({"prompt": pa.array(["a", "b", "a", None]).dictionary_encode()}, compression="gzip")
    yield _in_parquet({"text": ["same"] * 300}, write_statistics=False, store_schema=False)


def _parquet_labels() -> Iterator[bytes]:
    for labels in ([0, 1], [True, False], [0.0, 1.0], ["0", "1"]):
        yield _in_parquet({"clip_id": ["c1", "c2"], "label": labels}, compression="none")


TARGETS = (
    Target("prompts-txt", partial(_prompts, "txt"), _texts([b"a red ball falls\n# a comment\n\ntwo cups\r\n"]),
           words=_WORDS, share=8),
    Target("prompts-jsonl", partial(_prompts, "jsonl"), _real, words=_WORDS, share=10),
    Target("prompts-csv", partial(_prompts, "csv"), _texts([
        b'id,text,category\n1,"a ball, red",falling\n2,a cup,breaking\n',
        b'\xef\xbb\xbfprompt,laws,split\r\n"a ""b""\r\nc","gravity; friction",train\r\n',
    ]), words=_WORDS, share=10),
    Target("prompts-parquet", partial(_prompts, "parquet"), _parquet_prompts, words=("PAR1", "text", "id"), least=10_000, share=0),
    Target("labels-csv", partial(_labels, "csv"), _texts([b"clip_id,label\nc1,0\nc2,1\n", b"label,clip_id\nfalse,1\ntrue,2\n"]),
           words=("clip_id", "label", "true", "false", "\r", '"', "2026-11-30", "1e400", "\ufeff"), share=6),
    Target("labels-parquet", partial(_labels, "parquet"), _parquet_labels, words=("PAR1", "clip_id", "label"),
           least=10_000, share=0),
    Target("votes-csv", partial(_votes, "csv"), _texts([
        b"clip_id,question,kind,answer,rater,at\nc1,physics,yes_no,yes,ann,2026-11-30\nc2,physics,grade,3,bob,\n",
        b"path_A,path_B,VQ,MQ,TA,Overall\na.mp4,b.mp4,A,B,same,A\n",
        b"video_url,sa,pc\nhttps://a/b/c%20d.mp4,4,5\n",
    ]), words=("clip_id", "other_clip_id", "sha256", "video", "question", "low", "high", "pair", "both_bad", "shown_left",
               "path_A", "video_url", "1e400", "nan", '"', "\r", "\ufeff"), share=6),
    Target("votes-jsonl", partial(_votes, "jsonl"), _texts([
        b'{"clip_id": "c1", "question": "physics", "answer": true, "rater": "ann", "gold": "no"}',
        b'{"schema_version": 2, "supervision": {"type": "preference", "chosen": {"media": [{"type": "video", "path": '
        b'"a.mp4"}]}, "rejected": {"media": [{"type": "video", "path": "b.mp4"}]}}, "metadata": {"annotator": "x"}}',
        b'{"schema_version": 2, "supervision": {"type": "demonstration", "target": {"media": []}}}',
    ]), words=("supervision", "type", "media", "null", "[[[[", "{", "1e400", "\\ud800"), share=8),
    Target("clips-csv", _clips, _texts([
        b'path,prompt,category\ndrops/0001.mp4,"a ball, red",falling\n/b.mov,a cup,breaking\n',
        b"path,text,id\r\n../x.mp4,a,1.0\r\na.mp4,b,\r\n",
    ]), words=("path", "prompt", "text", "id", "category", "../", "//", "\x00", "\u200b", "nan", '"', "\ufeff"), share=6),
)  # fmt: skip
