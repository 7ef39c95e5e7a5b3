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
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.result import Result, command_line, device_name, show, versions, write
from data.keys import digest
from data.resources import INSTALLED as ROOT
from data.store import Store
from flows.config.load import load_recipe
from flows.reporting.report_link import AUTH_VARIABLE
from flows.serving.server_config import Place, read_auth

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
# What issue 6 allows: one or the other; and for a cached round.
SHARE_ALLOWED, SECONDS_ALLOWED, CACHED_ALLOWED_S = 0.05, 10.0, 30.0
START_S: Final = 900.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the tables, write `results/orchestration.json`."""
    chosen = _parse(arguments)
    settings = [*(FULL if chosen.full else SCALED), *chosen.set]
    recipe = load_recipe(chosen.recipe, settings)
    with tempfile.TemporaryDirectory(dir=chosen.work) as name:
        work = Path(name)
        with _server(work) as environment:
            pairs = [
                _pair(number, work, chosen.recipe, settings, environment) for number in range(chosen.pairs)
            ]
            if chosen.full:
                large, store = settings, work / f"prefect-{chosen.pairs - 1}"
            else:
                large, store = [*LARGE, *chosen.set], chosen.large or work / "large"
                # Plain: computing it is not what is measured. A store that has it already is left as it is.
                _timed([*_arguments(chosen.recipe, large, store), "--plain"], {})
            again = _arguments(chosen.recipe, large, store)
            # Once to let the server write its own records of what the store holds.
            first = _timed(again, environment)
            cached = [
                {"plain": _timed([*again, "--plain"], {}), "prefect": _timed(again, environment)}
                for _ in range(chosen.cached)
            ]
            stages = _last_summary(store)["stages"]
            clips = _training_clips(store)
    assert all(stage["cached_shards"] == stage["shards"] for stage in stages.values()), stages
    units = sum(stage["shards"] for stage in stages.values())
    plain = statistics.median(pair["plain"] for pair in pairs)
    ours = statistics.median(pair["prefect"] for pair in pairs)
    over = statistics.median(pair["prefect"] - pair["plain"] for pair in pairs)
    rerun = statistics.median(one["prefect"] for one in cached)
    _show(pairs, cached, clips, units)
    shape = {
        "recipe": recipe.name,
        "settings": settings,
        "cached_round": {"settings": large, "training_clips": clips, "units": units},
        "pairs": len(pairs),
        "threads": os.environ.get("OMP_NUM_THREADS", "1"),
        "workers": recipe.workers,
    }
    result = Result(
        name="orchestration",
        device=device_name(),
        plain=plain,
        ours=ours,
        ratio=plain / ours,
        unit="s a round",
        shape=shape,
        equality={"committed bytes": "equal in every pair"},
        command=command_line(),
        versions=versions("prefect", "fastapi", "sqlalchemy", "torch"),
        details={
            "pairs": pairs,
            "overhead_s": over,
            "overhead_share": over / plain,
            "allowed": {"share": SHARE_ALLOWED, "or_seconds": SECONDS_ALLOWED},
            "within": over <= max(SECONDS_ALLOWED, SHARE_ALLOWED * plain),
            "cached_round_first_s": first,
            "cached_round_s": cached,
            "cached_round_over_s": statistics.median(one["prefect"] - one["plain"] for one in cached),
            "cached_round_allowed_s": CACHED_ALLOWED_S,
            "cached_round_within": rerun < CACHED_ALLOWED_S,
        },
    )
    print(f"Written: {write(result, chosen.out) if chosen.out else write(result)}")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the whole round instead of the scaled one")
    parser.add_argument("--pairs", type=int, default=3, help="rounds with and without (default: 3)")
    parser.add_argument("--cached", type=int, default=3, help="repetitions of the cached round (default: 3)")
    parser.add_argument("--large", type=Path, help="a store for the cached round, kept for the next time")
    parser.add_argument("--recipe", default=RECIPE)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting")
    parser.add_argument("--work", type=Path, help="folder for stores and the server (default: the system's)")
    parser.add_argument("--out", type=Path, help="folder of the result (default: benchmarks/results)")
    chosen = parser.parse_args(arguments)
    if chosen.pairs < 1 or chosen.cached < 1:
        parser.error("--pairs and --cached must be at least 1")
    return chosen


def _pair(
    number: int, work: Path, recipe: str, settings: list[str], environment: dict[str, str]
) -> dict[str, float]:
    """Seconds of one round each way."""
    ways: list[tuple[str, list[str], dict[str, str]]] = [
        ("plain", ["--plain"], {}),
        ("prefect", [], environment),
    ]
    seconds: dict[str, float] = {}
    committed: dict[str, str] = {}
    for name, more, variables in ways if number % 2 == 0 else reversed(ways):
        store = work / f"{name}-{number}"
        seconds[name] = _timed([*_arguments(recipe, settings, store), *more], variables)
        committed[name] = _committed(store)
        if _last_summary(store)["policy_after"] is None:
            raise SystemExit(f"pair {number}: nothing to learn from, so not every stage had work to do")
    if len(set(committed.values())) != 1:
        raise SystemExit(f"pair {number}: with and without Prefect different bytes were committed")
    return seconds


def _arguments(recipe: str, settings: list[str], store: Path) -> list[str]:
    sets = [word for one in settings for word in ("--set", one)]
    return ["round", "--recipe", recipe, "--store", str(store), *sets]


def _timed(arguments: list[str], variables: dict[str, str]) -> float:
    """Wall seconds of one `vidloop` command, from its start to its end.

    Raises:
        SystemExit: it failed.
    """
    # A server that the caller's shell names is not what is measured.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "flows", *arguments],
        cwd=ROOT,
        env={"OMP_NUM_THREADS": "1", **clean, **variables},
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - begun
    if done.returncode != 0:
        raise SystemExit(f"vidloop {' '.join(arguments)} failed: {done.stderr}")
    return seconds


def _committed(store: Path) -> str:
    """One digest over everything that was committed; manifests name their files with sha256."""
    held = sorted((store / "manifests").glob("*/*.json"))
    return digest([[path.name, path.read_text(encoding="utf-8")] for path in held])


def _training_clips(store: Path) -> int:
    held = Store.open(store)
    rows = [row for one in held.manifests("generate") for row in held.read(one.key, "clips")]
    return sum(row.split == "train" for row in rows)


def _last_summary(store: Path) -> dict[str, Any]:
    newest = max((store / "rounds").glob("*/summary.json"), key=lambda path: path.stat().st_mtime_ns)
    summary: dict[str, Any] = json.loads(newest.read_text(encoding="utf-8"))
    return summary


@contextmanager
def _server(work: Path) -> Iterator[dict[str, str]]:
    """`vidloop serve` with one worker; what its clients need in their environment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    said = work / "serve.txt"
    folder = work / "serve"
    command = ["serve", "--folder", str(folder), "--store", str(work / "store"), "--port", str(port)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    with open(said, "w") as output:
        serving = subprocess.Popen(
            [sys.executable, "-m", "flows", *command], cwd=ROOT, env=clean, stdout=output, stderr=output
        )
    try:
        deadline = time.monotonic() + START_S
        while "Prefect UI:" not in said.read_text():
            if serving.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"vidloop serve did not start: {said.read_text()}")
            time.sleep(0.2)
        place = Place.load(folder)
        assert place is not None
        yield {"PREFECT_API_URL": place.api, AUTH_VARIABLE: read_auth(place.auth_file)}
    finally:
        serving.send_signal(signal.SIGINT)
        serving.wait()


def _show(pairs: list[dict[str, float]], cached: list[dict[str, float]], clips: int, units: int) -> None:
    header = ["", "plain", "on a server", "difference"]
    for title, found in [
        ("Whole rounds, seconds", pairs),
        (f"A round of {clips} training clips, {units} units, all cached, seconds", cached),
    ]:
        rows = [
            [
                str(number),
                f"{one['plain']:.1f}",
                f"{one['prefect']:.1f}",
                f"{one['prefect'] - one['plain']:+.1f}",
            ]
            for number, one in enumerate(found, 1)
        ]
        show(title, header, rows)


if __name__ == "__main__":
    main()
