"""Tables of a large store: how long it takes to connect and to ask, and with how much memory.

Builds a store of many clips and scores straight as a segment, with a tail of units in none, and asks it in a
process of its own for each question; and, for contrast, a smaller store of which nothing is compacted. The
stores stay in `--folder` and are used again.

    python -m benchmarks.tables --folder /tmp/tables
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from unittest import mock

import numpy as np
import pyarrow as pa

from benchmarks.harness import Clock, command_line, device_name, options, versions, write_json
from data.keys import digest
from data.queries import connect
from data.records import TABLES
from data.store import Manifest, Part, Store, reward_versions, segments
from data.store.parts import encode
from data.store.segment_rows import GROUP_ROWS, SHOWN, UNIT, PartWriter

QUESTIONS: Final = {
    "count": "SELECT count(*) FROM scores",
    "averages": "SELECT reward, avg(value), count(*) FROM scores GROUP BY ALL",
    "wide": "SELECT category, avg(reward0), avg(reward1), corr(reward0, reward1), count(*) "
    "FROM scores_wide GROUP BY ALL",
}
# Of the large store: seconds and MB.
BARS: Final = {"connect": (5.0, 1000), "count": (1.0, None), "averages": (1.0, None), "wide": (10.0, 4000)}
_SPREAD: Final = 1000  # so many different details


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a store: clips, rewards (a score of each clip by each), clips a unit."""

    clips: int
    rewards: int
    shard: int

    @property
    def scores(self) -> int:
        """How many."""
        return self.clips * self.rewards


def questions(shape: Shape, first: int = 0) -> Iterator[tuple[dict[str, Any], int, int | None]]:
    """Every unit of a store: its question, its shard's number, and its reward's (None: the clips)."""
    for shard in range(first, first + shape.clips // shape.shard):
        clips = {"stage": "generate", "version": 3, "shard": shard}
        yield clips, shard, None
        for reward in range(shape.rewards):
            yield {"stage": "score", "version": 1, "reward": f"reward{reward}", "clips": shard}, shard, reward


@functools.lru_cache(maxsize=100_000)
def clip_ids(shape: Shape, shard: int) -> list[str]:
    """Ids of one shard's clips, sorted."""
    rng = random.Random(shard)  # noqa: S311  (ids of made-up clips)
    return sorted(f"c{rng.getrandbits(96):024x}" for _ in range(shape.shard))


def rows(shape: Shape, shard: int, reward: int | None) -> pa.Table:
    """Rows of one unit."""
    ids, count = clip_ids(shape, shard), shape.shard
    if reward is None:
        prompt = [f"p{shard * count + row // 4:016x}" for row in range(count)]
        made: Mapping[str, Any] = {
            "clip_id": ids, "prompt_id": prompt, "prompt": [f"{one} falls off a table" for one in prompt],
            "category": [f"category {shard % 8}"] * count, "split": ["train"] * count,
            "policy_id": [f"m{shard % 50:024x}"] * count, "seed": list(range(count)),
        }  # fmt: skip
        filled = {field.name: [_EMPTY[field.type]] * count for field in TABLES["clips"].schema}
        return pa.table(filled | dict(made), schema=TABLES["clips"].schema)
    rng = np.random.default_rng([shard, reward])
    return pa.table(
        {
            "clip_id": ids, "reward": [f"reward{reward}"] * count, "reward_version": ["v1"] * count,
            "value": rng.random(count), "status": ["ok"] * count, "error": [None] * count,
            "detail": [_DETAILS[one] for one in rng.integers(0, _SPREAD, count)],
        },
        schema=TABLES["scores"].schema,
    )  # fmt: skip


_EMPTY: Final = {pa.string(): "x", pa.int64(): 1, pa.float64(): 1.0}
_DETAILS: Final = [json.dumps({"p_yes": one / _SPREAD, "frames": [0, 8, 16]}) for one in range(_SPREAD)]


def unit(question: Mapping[str, Any], table: str, count: int, data: bytes) -> Manifest:
    """A manifest as `Store.commit` makes it."""
    key, stage, sha = digest(dict(question)), question["stage"], digest([table, dict(question)])
    path = f"parts/{stage}/{key[:2]}/{key}/{table}-{sha[:12]}.parquet"
    return Manifest(key, stage, dict(question), (Part(table, path, count, sha, len(data)),), (), (), {})


def build_segment(store: Store, shape: Shape) -> None:
    """Write a store's units as one segment, as `data.store.compaction` does; they have no other files."""
    made = [
        (unit(asked, "clips" if reward is None else "scores", shape.shard, b""), shard, reward)
        for asked, shard, reward in questions(shape)
    ]
    made.sort(key=lambda one: one[0].key)
    units = [one for one, _, _ in made]
    question: dict[str, Any] = {"stage": segments.STAGE, "version": 1, "beside": [], "edition": 0}
    question["units"] = digest([one.key for one in units])
    key = digest(question)
    index: dict[str, list[Any]] = {
        "key": [one.key for one in units],
        "stage": [one.stage for one in units],
        "digest": [one.digest for one in units],
    }
    for table in ("clips", "scores"):
        index[segments.ROWS + table] = [shape.shard if one.part(table) else None for one in units]
    parts = written(store, key, segments.INDEX, [pa.table(index)], 100_000)
    schema = pa.schema([pa.field("manifest", pa.binary(), nullable=False)])
    parts += written(
        store,
        key,
        segments.MANIFESTS,
        (pa.table([pa.array([one.to_bytes()], pa.binary())], schema=schema) for one in units),
        1000,
    )
    for table in ("clips", "scores"):
        parts += written(
            store,
            key,
            table,
            (
                placed(rows(shape, shard, reward), place)
                for place, (one, shard, reward) in enumerate(made)
                if one.part(table)
            ),
            GROUP_ROWS,
        )
    reward_versions.note(store.backend, {(f"reward{one}", "v1") for one in range(shape.rewards)})
    store.commit(segments.STAGE, question, {}, info={"units": len(units), "overlaps": {}}, written=parts)


def written(store: Store, key: str, name: str, tables: Iterable[pa.Table], group: int) -> list[Part]:
    """Parts of the segment `key`."""
    every = iter(tables)
    writer: PartWriter | None = None
    while some := list(itertools.islice(every, 512)):
        table = pa.concat_tables(some)
        writer = writer or PartWriter(store, key, name, table.schema, group)
        writer.add(table)
    return writer.close() if writer else []


def placed(table: pa.Table, place: int) -> pa.Table:
    """Rows of the unit at a place of the index, as a segment has them."""
    columns = {
        "unit": pa.array(np.full(table.num_rows, place, np.int32)),
        "shown": np.full(table.num_rows, True),
    }
    schema = pa.schema([UNIT, SHOWN, *table.schema])
    return pa.table([*columns.values(), *table.columns], schema=schema)


def build_tail(store: Store, shape: Shape, first: int = 0) -> None:
    """Commit units one by one."""
    with mock.patch("os.fsync"):  # how long a disk takes is not asked
        for asked, shard, reward in questions(shape, first):
            name = "clips" if reward is None else "scores"
            table = rows(shape, shard, reward)
            key = digest(dict(asked))
            part = store.write_part(asked["stage"], key, name, table.num_rows, encode(table))
            store.commit(asked["stage"], asked, {}, written=[part])
    reward_versions.note(store.backend, {(f"reward{one}", "v1") for one in range(shape.rewards)})


def built(folder: Path, name: str, build: Callable[[Store], None], clock: Clock) -> Path:
    """A store in a folder, made unless it is there."""
    path = folder / name
    if not path.is_dir():
        draft = folder / f"{name}.draft"
        shutil.rmtree(draft, ignore_errors=True)
        build(Store.open(draft, create=True))
        draft.rename(path)
        clock.say(f"built {path}")
    return path


def ask(root: Path, name: str) -> dict[str, float]:
    """Connect to a store and ask one question: seconds and CPU seconds of both, and peak memory in MB."""
    begun, busy = time.perf_counter(), time.process_time()
    with connect(Store.open(root)) as con:
        connected = {"seconds": time.perf_counter() - begun, "cpu": time.process_time() - busy}
        asked, since = time.perf_counter(), time.process_time()
        if name in QUESTIONS:
            con.execute(QUESTIONS[name]).fetchall()
            connected = {"seconds": time.perf_counter() - asked, "cpu": time.process_time() - since}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {**connected, "peak_mb": peak, "whole_cpu": time.process_time()}


def measured(root: Path) -> dict[str, dict[str, float]]:
    """All questions, a process each."""
    found = {}
    for name in ("connect", *QUESTIONS):
        command = [sys.executable, "-m", "benchmarks.tables", "--ask", name, "--folder", str(root)]
        found[name] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, ask, write `tables.json`; 1 if the large store misses a bar."""
    parser = options(__doc__, device=False)
    parser.add_argument("--folder", type=Path, required=True, help="of the stores; a few GB")
    parser.add_argument("--clips", type=int, default=1_000_000)
    parser.add_argument("--rewards", type=int, default=10)
    parser.add_argument("--shard", type=int, default=128, help="clips a unit")
    parser.add_argument("--tail", type=int, default=45, help="shards of 16 clips that are in no segment")
    parser.add_argument("--plain", type=int, default=100_000, help="clips of the store without segments")
    parser.add_argument("--ask", choices=["connect", *QUESTIONS], help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.ask:
        print(json.dumps(ask(asked.folder, asked.ask)))
        return 0
    clock = Clock()
    large = Shape(asked.clips // asked.shard * asked.shard, asked.rewards, asked.shard)
    tail = Shape(asked.tail * 16, asked.rewards, 16)
    plain = Shape(asked.plain // 16 * 16, 2, 16)

    def build_large(store: Store) -> None:
        build_segment(store, large)
        build_tail(store, tail, large.clips // large.shard)

    stores = {
        "compacted": built(asked.folder, f"large-{large.clips}", build_large, clock),
        "uncompacted": built(
            asked.folder, f"plain-{plain.clips}", lambda store: build_tail(store, plain), clock
        ),
    }
    figures = {name: measured(root) for name, root in stores.items()}
    late = [name for name, bar in BARS.items() if _misses(figures["compacted"][name], *bar)]
    content = {
        "name": "tables",
        "device": device_name(),
        "shape": {
            "clips": large.clips + tail.clips,
            "scores": large.scores + tail.scores,
            "units_in_segments": large.clips // large.shard * (1 + large.rewards),
            "units_in_the_tail": asked.tail * (1 + tail.rewards),
            "uncompacted": {"clips": plain.clips, "scores": plain.scores, "clips_a_unit": plain.shard},
        },
        "bars": BARS,
        "missed": late,
        **figures,
        "command": command_line(),
        "versions": versions("duckdb", "pyarrow", "numpy"),
    }
    path = write_json(asked.out / "tables.json", content)
    for store, named in figures.items():
        for name, one in named.items():
            clock.say(
                f"{store} {name}: {one['seconds']:.2f} s, {one['cpu']:.2f} s of CPU, "
                f"{one['peak_mb']:.0f} MB, {one['whole_cpu']:.2f} s of CPU in all"
            )
    print(f"written: {path}", *(f"\nmissed: {name}" for name in late))
    return int(bool(late))


def _misses(figure: Mapping[str, float], seconds: float, peak: float | None) -> bool:
    return figure["seconds"] > seconds or (peak is not None and figure["peak_mb"] > peak)


if __name__ == "__main__":
    sys.exit(main())
