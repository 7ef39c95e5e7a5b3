"""What Prefect costs: whole rounds with it and without, in turn, and a round of which everything is cached.

    python -m benchmarks.orchestration                      scaled down: a pair takes some minutes
    python -m benchmarks.orchestration --full --pairs 5     the miniature's own round, 1,080 training clips

Both sides are `vidloop round` in a process and a store of its own, with the same recipe and as many threads.
One talks to a server that is running (`vidloop serve` with its worker, on the same cores), the other is
`--plain`. The order alternates from pair to pair, and both must commit the same bytes. The judge answers in
the round's own process: how long vLLM takes to start varies by more than what is measured here.

The cached round has 1,080 training clips in any case. Where the pairs are scaled down, its clips are made in
one solver step: what a cached round does depends on how many there are, not on how they were made.

Where the seconds go is in docs/prefect.md, "What Prefect costs".
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.harness import Result, in_turn, options, write
from data.keys import digest
from data.resources import INSTALLED as ROOT
from data.store import Store
from flows.config.load import load_recipe
from flows.reporting.report_link import AUTH_VARIABLE
from flows.serving.server_config import ServerConfig, read_auth

RECIPE: Final = "recipes/mini.yaml"
SCALED: Final = (
    "judge.backend=local",
    "generate.prompts=dev",  # 60 of them
    "generate.clips_per_prompt=2",  # with one there would be no pair to learn from
    "evaluate.clips=120",
    "evaluate.also=[]",
    "finetune.steps=8",
)
FULL: Final = ("judge.backend=local", "generate.clips_per_prompt=9")
# A round as large as that one, computed fast: for the cached round.
LARGE: Final = (*FULL, "generate.steps=1", "finetune.steps=15")
START_S: Final = 900.0
SIDES: Final = ("plain", "prefect")

Pair = dict[str, float]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the tables, write `results/orchestration.json`."""
    asked = _parse(arguments)
    settings = [*(FULL if asked.full else SCALED), *asked.set]
    recipe = load_recipe(asked.recipe, settings)
    with tempfile.TemporaryDirectory(dir=asked.work) as name:
        work = Path(name)
        with _server(work) as environment:
            sides = {"plain": (["--plain"], {}), "prefect": ([], environment)}
            pairs: list[Pair] = [{} for _ in range(asked.pairs)]
            for number, side in in_turn(SIDES, asked.pairs):
                more, variables = sides[side]
                command = _round(asked.recipe, settings, work / f"{side}-{number}")
                pairs[number][side] = _timed([*command, *more], variables)
            for number in range(asked.pairs):
                _same_work(*(work / f"{side}-{number}" for side in SIDES))
            if asked.full:
                large, store = settings, work / f"prefect-{asked.pairs - 1}"
            else:
                large, store = [*LARGE, *asked.set], asked.large or work / "large"
                # Plain: computing it is not what is measured. A store that has it already is left as it is.
                _timed([*_round(asked.recipe, large, store), "--plain"], {})
            again = _round(asked.recipe, large, store)
            # Once to let the server write its own records of what the store holds.
            first = _timed(again, environment)
            cached: list[Pair] = [
                {side: _timed([*again, *more], variables) for side, (more, variables) in sides.items()}
                for _ in range(asked.cached)
            ]
            stages = _last_summary(store)["stages"]
            clips = _training_clips(store)
    assert all(stage["cached_shards"] == stage["shards"] for stage in stages.values()), stages
    units = sum(stage["shards"] for stage in stages.values())
    plain, ours = (median(pair[side] for pair in pairs) for side in SIDES)
    over = median(map(_over, pairs))
    result = Result(
        "orchestration",
        plain,
        ours,
        "s a round",
        more_is_better=False,
        libraries=("prefect", "fastapi", "sqlalchemy", "torch"),
        shape={
            "recipe": recipe.name,
            "settings": settings,
            "cached_round": {"settings": large, "training_clips": clips, "units": units},
            "pairs": len(pairs),
            "threads": os.environ.get("OMP_NUM_THREADS", "1"),
            "workers": recipe.workers,
        },
        equality={"committed bytes": "equal in every pair"},
        details={
            "pairs": pairs,
            "overhead_s": over,
            "overhead_share": over / plain,
            "cached_round_first_s": first,
            "cached_round_s": cached,
            "cached_round_over_s": median(map(_over, cached)),
        },
    )
    write(result, asked.out)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = options(__doc__, device=False)
    parser.add_argument("--full", action="store_true", help="the whole round instead of the scaled one")
    parser.add_argument("--pairs", type=int, default=3, help="rounds with and without (default: 3)")
    parser.add_argument("--cached", type=int, default=3, help="repetitions of the cached round (default: 3)")
    parser.add_argument("--large", type=Path, help="a store for the cached round, kept for the next time")
    parser.add_argument("--recipe", default=RECIPE)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting")
    parser.add_argument("--work", type=Path, help="folder for stores and the server (default: the system's)")
    asked = parser.parse_args(arguments)
    if asked.pairs < 1 or asked.cached < 1:
        parser.error("--pairs and --cached must be at least 1")
    return asked


def _same_work(plain: Path, prefect: Path) -> None:
    """Raises SystemExit if the two stores hold different bytes, or nothing was learned."""
    held = [sorted(store.glob("manifests/*/*.json")) for store in (plain, prefect)]
    # One digest over everything that was committed: manifests name their files with sha256.
    if len({digest([[path.name, path.read_text(encoding="utf-8")] for path in one]) for one in held}) != 1:
        raise SystemExit(f"{plain} and {prefect}: with and without Prefect different bytes were committed")
    if _last_summary(plain)["policy_after"] is None:
        raise SystemExit(f"{plain}: nothing to learn from, so not every stage had work to do")


def _round(recipe: str, settings: list[str], store: Path) -> list[str]:
    sets = [word for one in settings for word in ("--set", one)]
    return ["round", "--recipe", recipe, "--store", str(store), *sets]


def _environment() -> dict[str, str]:
    """This process's, without a server that the caller's shell names: that is not what is measured."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}


def _timed(arguments: list[str], variables: Mapping[str, str]) -> float:
    """Wall seconds of one `vidloop` command, from its start to its end. Raises SystemExit: it failed."""
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "flows", *arguments],
        cwd=ROOT,
        env={"OMP_NUM_THREADS": "1", **_environment(), **variables},
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - begun
    if done.returncode != 0:
        raise SystemExit(f"vidloop {' '.join(arguments)} failed: {done.stderr}")
    return seconds


def _training_clips(store: Path) -> int:
    held = Store.open(store)
    rows = [row for one in held.manifests("generate") for row in held.read(one.key, "clips")]
    return sum(row.split == "train" for row in rows)


def _last_summary(store: Path) -> dict[str, Any]:
    newest = max(store.glob("rounds/*/summary.json"), key=lambda path: path.stat().st_mtime_ns)
    summary: dict[str, Any] = json.loads(newest.read_text(encoding="utf-8"))
    return summary


@contextmanager
def _server(work: Path) -> Iterator[dict[str, str]]:
    """`vidloop serve` with one worker; what its clients need in their environment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    said, folder = work / "serve.txt", work / "serve"
    command = ["serve", "--folder", str(folder), "--store", str(work / "store"), "--port", str(port)]
    with open(said, "w") as output:
        serving = subprocess.Popen(
            [sys.executable, "-m", "flows", *command],
            cwd=ROOT,
            env=_environment(),
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + START_S
        while "Prefect UI:" not in said.read_text():
            if serving.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"vidloop serve did not start: {said.read_text()}")
            time.sleep(0.2)
        config = ServerConfig.load(folder)
        assert config is not None
        yield {"PREFECT_API_URL": config.api, AUTH_VARIABLE: read_auth(config.auth_file)}
    finally:
        serving.send_signal(signal.SIGINT)
        serving.wait()


def _over(pair: Pair) -> float:
    return pair["prefect"] - pair["plain"]


if __name__ == "__main__":
    main()
