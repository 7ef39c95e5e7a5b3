"""Large stores for benchmarks: many clips and scores, straight as a segment, or committed unit by unit.

The segment holds the answers to a recipe's questions, so that its round can be planned. Its units name no
media: a clip's file costs a plan one look at its size.
"""

from __future__ import annotations

import functools
import itertools
import json
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from unittest import mock

import numpy as np
import pyarrow as pa
import yaml

from data.keys import digest
from data.records import TABLES
from data.store import Manifest, Part, Store, reward_versions, segments
from data.store.parts import encode
from data.store.segment_rows import GROUP_ROWS, SHOWN, UNIT, PartWriter
from flows.config.load import load_recipe, read_tree
from flows.rounds.dry_run import to_look_at
from tasks import fingerprints, generate

# The first so many of them score; none needs a network that does not come with the miniature.
REWARDS: Final = (
    "clip", "motion", "flow", "own_motion", "tempo", "sharpness", "grain", "flicker", "colour", "luma",
)  # fmt: skip
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


def write_recipe(path: Path, shape: Shape) -> None:
    """The recipe of a round of this shape, a prompt a unit, with a file of prompts beside it."""
    prompts = path.with_suffix(".jsonl")
    named = ({"prompt": f"ball {place} falls off a table"} for place in range(shape.clips // shape.shard))
    prompts.write_text("".join(json.dumps(one) + "\n" for one in named), encoding="utf-8")
    tree = read_tree("miniature/recipes/mini.yaml")
    tree["generate"] |= {
        "prompts": str(prompts.absolute()), "clips_per_prompt": shape.shard, "batch_size": shape.shard,
    }  # fmt: skip
    tree |= {"rewards": list(REWARDS[: shape.rewards]), "feedback": REWARDS[0]}
    tree |= {"shaping": {"kind": "graded"}}
    tree["curate"] |= {"accept_fraction": 0.5}
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")


def of_round(recipe: Path) -> Iterator[tuple[Manifest, int, int | None]]:
    """What the units of a recipe's first two stages commit, without media; and as `made_up`."""
    with TemporaryDirectory() as nothing, to_look_at(load_recipe(str(recipe)), nothing) as context:
        for shard, one in enumerate(generate.units(context)):
            clips = unit(one.question, "clips", len(one.jobs), b"")
            yield clips, shard, None
            for place, reward in enumerate(context.rewards):
                question = fingerprints.score(reward, clips.digest)
                info = {"clips": len(one.jobs), "failed": 0}
                yield unit(question, "scores", len(one.jobs), b"", info), shard, place


def made_up(shape: Shape, first: int = 0) -> Iterator[tuple[dict[str, Any], int, int | None]]:
    """Questions of no recipe, a unit each: with its shard's number, and its reward's (None: the clips)."""
    for shard in range(first, first + shape.clips // shape.shard):
        clips = {"stage": "generate", "version": 3, "shard": shard}
        yield clips, shard, None
        for reward in range(shape.rewards):
            asked = {"reward": REWARDS[reward], "reward_version": "v1", "clips": shard}
            yield {"stage": "score", "version": 1, **asked}, shard, reward


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
            "clip_id": ids, "reward": [REWARDS[reward]] * count, "reward_version": ["v1"] * count,
            "value": rng.random(count), "status": ["ok"] * count, "error": [None] * count,
            "detail": [_DETAILS[one] for one in rng.integers(0, _SPREAD, count)],
        },
        schema=TABLES["scores"].schema,
    )  # fmt: skip


_EMPTY: Final = {pa.string(): "x", pa.int64(): 1, pa.float64(): 1.0}
_DETAILS: Final = [json.dumps({"p_yes": one / _SPREAD, "frames": [0, 8, 16]}) for one in range(_SPREAD)]


def unit(
    question: Mapping[str, Any], table: str, count: int, data: bytes, info: Mapping[str, Any] | None = None
) -> Manifest:
    """A manifest as `Store.commit` makes it."""
    key, stage, sha = digest(dict(question)), question["stage"], digest([table, dict(question)])
    path = f"parts/{stage}/{key[:2]}/{key}/{table}-{sha[:12]}.parquet"
    return Manifest(
        key, stage, dict(question), (Part(table, path, count, sha, len(data)),), (), (), dict(info or {})
    )


def build_segment(store: Store, shape: Shape, recipe: Path) -> None:
    """Write a round's units as one segment, as `data.store.compaction` does; they have no other files."""
    made = sorted(of_round(recipe), key=lambda one: one[0].key)
    units = [one for one, _, _ in made]
    question: dict[str, Any] = {
        "stage": segments.STAGE,
        "version": segments.VERSION,
        "beside": [],
        "edition": 0,
    }
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
    reward_versions.note(store.backend, {(one, "v1") for one in REWARDS[: shape.rewards]})
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
        UNIT.name: pa.array(np.full(table.num_rows, place, np.int32)),
        SHOWN.name: np.full(table.num_rows, True),
    }
    schema = pa.schema([UNIT, SHOWN, *table.schema])
    return pa.table([*columns.values(), *table.columns], schema=schema)


def build_tail(store: Store, shape: Shape, first: int = 0) -> None:
    """Commit units one by one."""
    with mock.patch("os.fsync"):  # how long a disk takes is not asked
        for asked, shard, reward in made_up(shape, first):
            name = "clips" if reward is None else "scores"
            table = rows(shape, shard, reward)
            key = digest(dict(asked))
            part = store.write_part(asked["stage"], key, name, table.num_rows, encode(table))
            store.commit(asked["stage"], asked, {}, written=[part])
    reward_versions.note(store.backend, {(one, "v1") for one in REWARDS[: shape.rewards]})
