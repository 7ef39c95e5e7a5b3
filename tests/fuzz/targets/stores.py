"""Files of a store that are JSON or Parquet, as whoever may write into the store could leave them."""

from __future__ import annotations

import atexit
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING

from data import champion
from data.errors import VidloopError
from data.keys import bytes_digest, digest
from data.queries import answer, connect
from data.records import Score
from data.store import Store
from data.store.manifest import Manifest
from tasks import calibrate, campaign_record, rounds
from tests.fuzz.target import Target, folder

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_JSON = (
    '{"',
    '": ',
    "null",
    "true",
    "1e999",
    "NaN",
    "-1",
    "[[[[",
    "{}",
    '"\\ud800"',
    '"\\u0000"',
    "123456789012345678901",
)
_QUESTION = {"stage": "score", "version": 1}
_ROUND = "20261130T120000-00000000"
_SUMMARY, _RUNS = f"rounds/{_ROUND}/summary.json", "runs/run.jsonl"


@cache
def store() -> Store:
    """A small one that this process owns."""
    made = Store.open(folder() / "store", create=True)
    scores = [Score(f"c{place}", "flow", "v1", 0.5 * place, "ok", None, "{}") for place in range(2)]
    made.commit("score", _QUESTION, {"scores": scores})
    return made


def _manifest(data: bytes) -> None:
    """As it is, and with the digests that it should have."""
    _read_manifest(data)
    try:
        body = json.loads(data)
        body.pop("check", None)
        body["key"] = digest(body["question"])
        mended = json.dumps(body | {"check": digest(body)}).encode()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return
    _read_manifest(mended)


def _read_manifest(data: bytes) -> None:
    try:
        found = Manifest.from_bytes(data, "manifest")
    except VidloopError:
        return
    for item in found.files:
        store().fault(item)


def _manifests() -> Iterator[bytes]:
    yield from (one.to_bytes() for one in store().manifests())


def _file(path: str, read: Callable[[Store], object], data: bytes) -> None:
    _write(path, data)
    read(store())


def _write(path: str, data: bytes) -> None:
    file = store().root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)


def _kept(*said: object) -> Callable[[], Iterable[bytes]]:
    return lambda: [json.dumps(one).encode() for one in said]


def _format(data: bytes) -> None:
    root = store().root
    kept = (root / "format.json").read_bytes()
    try:
        (root / "format.json").write_bytes(data)
        Store.open(root)
    finally:
        (root / "format.json").write_bytes(kept)


def _champion(store: Store) -> None:
    known = champion.read(store)
    if known is not None:
        champion.promote(store, known.policy_id, "a round")


@cache
def _views() -> DuckDBPyConnection:
    """Views over a summary and the facts of a run, which are read anew for each query."""
    for path in (_SUMMARY, _RUNS):
        _write(path, b"{}")
    return connect(store(), memory_mb=300)


# Before the interpreter ends: DuckDB counts what is left then.
atexit.register(_views.cache_clear)


def _facts(store: Store) -> None:
    answer(_views(), "SELECT * FROM timings")


def _summary(store: Store) -> None:
    for view in ("rounds", "names", "lineage"):
        answer(_views(), f"SELECT * FROM {view}")
    rounds.read_summary(store, _ROUND).changed(verdict="another")


def _calibration(store: Store) -> None:
    found = calibrate.read(store, "judge", "v1")
    if found is not None:
        calibrate.vague(found[0])


def _series(store: Store) -> None:
    for one in campaign_record.nightly(store):
        campaign_record.facts_of(one)


def _part(data: bytes) -> None:
    """A part with the digest that its manifest names: nothing but its content is wrong."""
    home = store()
    held = home.manifests("score")[0]
    part = replace(held.parts[0], path="parts/score/fuzz.parquet", sha256=bytes_digest(data), bytes=len(data))
    question = {**_QUESTION, "name": "fuzz"}
    manifest = replace(held, key=digest(question), question=question, parts=(part,))
    home.write_file(part.path, data)
    path = f"manifests/score/{manifest.key}.json"
    home.write_file(path, manifest.to_bytes())
    try:
        home.read(manifest.key, "scores")
    finally:
        home.path(path).unlink()


def _parts() -> Iterator[bytes]:
    for manifest in store().manifests("score"):
        yield from (store().path(part.path).read_bytes() for part in manifest.parts)


_RUN = {
    "time": "2026-11-30T12:00:00.000+00:00",
    "host": "h",
    "pid": 1,
    "stage": "score",
    "key": "k",
    "seconds": 1.5,
    "cached": False,
}
_CHAMPION = {
    "history": [
        {"policy_id": "p1", "round_id": "r1"},
        {"policy_id": "p2", "round_id": "r2", "approved_by": "x"},
    ]
}

TARGETS = (
    Target("manifest", _manifest, _manifests, trees=True, words=(*_JSON, "check", "parts", "media", "schema_version", "counts"), share=20),
    Target("format", _format, _kept({"format": 1, "written_by": "0.2.0"}, {"format": 2}), trees=True, words=_JSON, most=512, share=6),
    Target("champion", partial(_file, "champion.json", _champion), _kept(_CHAMPION),
           trees=True, words=(*_JSON, "history", "policy_id", "round_id"), most=1024, share=10),
    Target("series", partial(_file, f"improvements/{_ROUND}/summary.json", _series), _kept(), trees=True, words=_JSON, most=8192, share=4),
    Target("summary", partial(_file, _SUMMARY, _summary), _kept(), trees=True, words=_JSON, most=16384, share=0),
    Target("calibration", partial(_file, "calibrations/judge-v1.json", _calibration), _kept(), trees=True, words=_JSON, share=6),
    Target("run-facts", partial(_file, _RUNS, _facts), lambda: [f"{json.dumps(_RUN)}\n".encode() * 2],
           trees=True, words=(*_JSON, "\n"), most=1024, share=0),
    Target("part", _part, _parts, words=("PAR1", "clip_id", "reward", "value"), least=10_000, share=0),
)  # fmt: skip
