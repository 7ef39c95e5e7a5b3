"""Curation, ours against the plain way: seconds, CPU and memory for as many clips as a large store holds.

    python -m benchmarks.curation --clips 1000000 --plain-clips 100000              results/curation.json

A store is built straight as large units (`--unit` clips each; what many small ones cost is not measured
here): clips and `--rewards` scores of each, a share of them failed. Plain is `plain` of
`benchmarks.curation_sides`: all columns, every ordered pair of a prompt, a Python object a row. Both curate
the same `--plain-clips`, ours also `--clips`, each in a process of its own, from the units to the parts.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from benchmarks.harness import Result, options, write
from data.records import TABLES
from data.store import Store

_FAILED: Final = 0.01


def main() -> None:
    """See the module's docstring."""
    parser = options(__doc__, device=False)
    parser.add_argument("--clips", type=int, default=1_000_000)
    parser.add_argument("--plain-clips", type=int, default=100_000)
    parser.add_argument("--per-prompt", type=int, default=100, help="clips of a prompt")
    parser.add_argument("--rewards", type=int, default=10, help="scores of a clip, one of which teaches")
    parser.add_argument("--unit", type=int, default=10_000, help="clips of a unit")
    parser.add_argument("--kind", choices=("binary", "graded"), default="graded")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small, large = folder / "small", folder / "large"
        build(small, asked.plain_clips, asked)
        build(large, asked.clips, asked)
        plain, ours, whole = (
            apart(asked, side, store) for side, store in (("plain", small), ("ours", small), ("ours", large))
        )
    same = plain.pop("digest") == ours.pop("digest")
    whole.pop("digest")
    result = Result(
        "curation", plain["cpu_seconds"], ours["cpu_seconds"], f"CPU seconds for {asked.plain_clips} clips",
        more_is_better=False, libraries=["duckdb", "pyarrow", "numpy"],
        shape={
            "clips": asked.clips, "plain_clips": asked.plain_clips, "clips_per_prompt": asked.per_prompt,
            "rewards": asked.rewards, "clips_per_unit": asked.unit, "kind": asked.kind, "failed": _FAILED,
        },
        equality={"parts of the same digests": same},
        details={"plain": plain, "ours": ours, f"ours, {asked.clips} clips": whole},
        memory_ratio=ours["peak_mb"] / plain["peak_mb"],
    )  # fmt: skip
    write(result, asked.out)
    if not same:
        sys.exit("plain and ours gave different parts")


def apart(asked: argparse.Namespace, side: str, store: Path) -> dict[str, Any]:
    """What a side takes, in a process of its own, whose peak of memory is that of nothing else."""
    command = [sys.executable, "-m", "benchmarks.curation_sides", side, str(store), asked.kind]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def build(root: Path, clips: int, asked: argparse.Namespace) -> None:
    """A store of so many clips and their scores, in units of `--unit` clips."""
    store = Store.open(root, create=True)
    for start, table in _clips(clips, asked.per_prompt, asked.unit):
        made = store.commit("generate", {"stage": "generate", "from": start}, {"clips": table})
        question = {"stage": "score", "from": start}
        judged = _scores(table["clip_id"], start, asked.rewards)
        store.commit("score", question, {"scores": judged}, parents=[made.key])


def _clips(clips: int, per_prompt: int, unit: int) -> Iterator[tuple[int, pa.Table]]:
    """(number of the first, rows) of each unit; prompts and paths repeat as those of a round do."""
    for start in range(0, clips, unit):
        found = {f"c{_name(number)}": number for number in range(start, min(start + unit, clips))}
        numbers = [found[clip] for clip in sorted(found)]
        prompts = [number // per_prompt for number in numbers]
        varied = {
            "clip_id": sorted(found),
            "prompt_id": [f"p{_name(prompt)[:16]}" for prompt in prompts],
            "prompt": [f"a red ball rolls off the table at number {prompt} and falls" for prompt in prompts],
            "category": [f"category {prompt % 7}" for prompt in prompts],
            "seed": numbers,
        }
        yield start, _table("clips", varied, len(numbers))


def _name(number: int) -> str:
    """24 hexadecimal digits, as ids have them."""
    return hashlib.sha256(str(number).encode()).hexdigest()[:24]


def _scores(clips: pa.ChunkedArray, seed: int, rewards: int) -> pa.Table:
    """What `rewards` rewards say of some clips, one in a hundred of them failed."""
    rng = np.random.default_rng(seed)
    rows = len(clips) * rewards
    failed = rng.random(rows) < _FAILED
    varied = {
        "clip_id": np.repeat(clips.to_numpy(), rewards),
        "reward": [f"reward {number}" for number in range(rewards)] * len(clips),
        "value": pa.array(rng.random(rows).round(3), mask=failed),
        "status": np.where(failed, "failed", "ok"),
        "error": pa.array(np.full(rows, "no answer"), mask=~failed),
        "detail": ['{"questions": {"the ball falls": 0.75, "the scene is whole": 0.5}}'] * rows,
    }
    return _table("scores", varied, rows)


def _table(name: str, varied: Mapping[str, Any], rows: int) -> pa.Table:
    """Columns of which the others have the same value in every row."""
    same: dict[Any, Any] = {pa.string(): "", pa.int64(): 16, pa.float64(): 8.0}
    return pa.Table.from_arrays(
        [
            pa.array(varied[field.name], field.type)
            if field.name in varied
            else pa.repeat(same[field.type], rows)
            for field in TABLES[name].schema
        ],
        schema=TABLES[name].schema,
    )


if __name__ == "__main__":
    main()
