"""Tables of a large store: how long it takes to connect and to ask, and with how much memory.

Builds a store of many clips and scores straight as a segment, with a tail of units in none, and asks it in a
process of its own for each question; and, for contrast, a smaller store of which nothing is compacted. The
stores stay in `--folder` and are used again.

    python -m benchmarks.tables --folder /tmp/tables
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.harness import Clock, command_line, device_name, options, versions, write_json
from benchmarks.large_store import REWARDS, Shape, build_segment, build_tail, write_recipe
from data.queries import connect
from data.store import Store
from flows.config.load import load_recipe
from flows.rounds.dry_run import plan_lines, to_look_at

QUESTIONS: Final = {
    "count": "SELECT count(*) FROM scores",
    "averages": "SELECT reward, avg(value), count(*) FROM scores GROUP BY ALL",
    "wide": "SELECT category, avg(clip), avg(motion), corr(clip, motion), count(*) "
    "FROM scores_wide GROUP BY ALL",
}
PLAN: Final = "plan"
# Of the large store: seconds and MB.
BARS: Final = {
    "connect": (5.0, 1000), "count": (1.0, None), "averages": (1.0, None), "wide": (10.0, 4000),
    PLAN: (15.0, None),
}  # fmt: skip
# Of the other one: CPU seconds of connecting and counting.
UNCOMPACTED_S: Final = 5.0


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


def ask(root: Path, name: str) -> dict[str, Any]:
    """Connect to a store and ask one question, or plan its round: what it took.

    Returns:
        seconds and CPU seconds of the question (or of connecting), CPU seconds of the whole process, peak
        memory in MB; of a plan also what it said of the two stages.
    """
    begun, busy = time.perf_counter(), time.process_time()
    said: dict[str, Any] = {}
    if name == PLAN:
        with to_look_at(load_recipe(str(root.with_suffix(".yaml"))), str(root)) as context:
            said = {"stages": [line for line in plan_lines(context) if " cached, " in line]}
    else:
        with connect(Store.open(root)) as con:
            if name in QUESTIONS:
                begun, busy = time.perf_counter(), time.process_time()
                con.execute(QUESTIONS[name]).fetchall()
    took = {"seconds": time.perf_counter() - begun, "cpu": time.process_time() - busy}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {**took, "peak_mb": peak, "whole_cpu": time.process_time(), **said}


def questions(root: Path) -> list[str]:
    """What a store is asked; to plan only where there is a recipe of it."""
    return [name for name in BARS if name != PLAN or root.with_suffix(".yaml").exists()]


def measured(root: Path) -> dict[str, dict[str, Any]]:
    """All questions, a process each."""
    found = {}
    for name in questions(root):
        command = [sys.executable, "-m", "benchmarks.tables", "--ask", name, "--folder", str(root)]
        found[name] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, ask, write `tables.json`; 1 if a bar is missed."""
    parser = options(__doc__, device=False)
    parser.add_argument("--folder", type=Path, required=True, help="of the stores; a few GB")
    parser.add_argument("--clips", type=int, default=1_000_000)
    parser.add_argument("--rewards", type=int, default=len(REWARDS), help="a clip, at most that many")
    parser.add_argument("--shard", type=int, default=128, help="clips a unit")
    parser.add_argument("--tail", type=int, default=45, help="shards of 16 clips that are in no segment")
    parser.add_argument("--plain", type=int, default=100_000, help="clips of the store without segments")
    parser.add_argument("--ask", choices=list(BARS), help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.ask:
        print(json.dumps(ask(asked.folder, asked.ask)))
        return 0
    clock = Clock()
    large = Shape(asked.clips // asked.shard * asked.shard, asked.rewards, asked.shard)
    tail = Shape(asked.tail * 16, asked.rewards, 16)
    plain = Shape(asked.plain // 16 * 16, 2, 16)
    recipe = asked.folder / f"large-{large.clips}.yaml"

    def build_large(store: Store) -> None:
        write_recipe(recipe, large)
        build_segment(store, large, recipe)
        build_tail(store, tail, large.clips // large.shard)

    stores = {
        "compacted": built(asked.folder, f"large-{large.clips}", build_large, clock),
        "uncompacted": built(
            asked.folder, f"plain-{plain.clips}", lambda store: build_tail(store, plain), clock
        ),
    }
    load = os.getloadavg()[0]
    figures = {name: measured(root) for name, root in stores.items()}
    late = [name for name, bar in BARS.items() if _misses(figures["compacted"][name], *bar)]
    if sum(figures["uncompacted"][name]["cpu"] for name in ("connect", "count")) > UNCOMPACTED_S:
        late.append("uncompacted")
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
        "bars": {**BARS, "uncompacted": [UNCOMPACTED_S, None]},
        "missed": late,
        "load": load,
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
