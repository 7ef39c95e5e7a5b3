"""Tables that people bring: prompts in four formats, labels in two."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as parquet

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
)  # fmt: skip
