"""The long run of the fault harness, in pieces: `python -m tests.chaos.soak --help`.

Every trial is a line in a file, and is not done again. From the lines come the counts and the table of
docs/reliability.md.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from tests.chaos import file_jobs, machine_faults, round_jobs, wire_faults
from tests.chaos.trial import WHOLE, Bench, Job

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "reliability.md"
COUNTS: Final = ROOT / "docs" / "reliability.json"
_BEGIN: Final = "<!-- made by `python -m tests.chaos.soak --table`: begin -->"
_END: Final = "<!-- end -->"


def jobs() -> dict[str, Job]:
    """Every job by its name."""
    return {
        job.name: job for job in (*file_jobs.JOBS, *round_jobs.JOBS, *machine_faults.JOBS, *wire_faults.JOBS)
    }


def bench_of(job: Job) -> Callable[..., Bench]:
    """What disturbs a job: its files, or the machine, or the wire."""
    if isinstance(job, machine_faults.Everything):
        return machine_faults.MachineBench
    return wire_faults.WireBench if isinstance(job, wire_faults.Judged) else Bench


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a run; one that a kill has torn is none."""
    for line in path.read_text("utf-8").splitlines() if path.exists() else []:
        try:
            yield json.loads(line)
        except ValueError:
            continue


def work(job: Job, options: argparse.Namespace, until: float, folder: Path) -> int:
    """Try what is left of one job, for as long as there is time; how many failed."""
    done = {one["trial"] for one in read(options.out) if one["step"] == job.name}
    if len(done) >= options.each:
        return 0
    bench = bench_of(job)(job, folder / job.name, options.seed)
    gc.freeze()  # what is loaded stays: no collection need look through it
    left = [trial for trial in bench.trials() if trial.id not in done]
    tally: Counter[str] = Counter()
    for trial in left[: options.each - len(done)]:
        if time.monotonic() > until:
            break
        found = bench.attempt(trial)
        tally[found.outcome] += 1
        line = {"step": job.name, "kind": trial.kind, "trial": trial.id, "outcome": found.outcome}
        if found.outcome not in WHOLE:
            line["reason"] = found.reason
            print(f"{job.name}: {trial.id}: {found.outcome}: {found.reason[-2000:]}", flush=True)
        with open(options.out, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    told = ", ".join(f"{count} {name}" for name, count in sorted(tally.items())) or "no time"
    print(f"{job.name}: {told}; {len(left) - sum(tally.values())} of its trials left", flush=True)
    return sum(count for name, count in tally.items() if name not in WHOLE)


def counts(path: Path) -> dict[str, dict[str, dict[str, int]]]:
    """Trials by step, kind and outcome."""
    found: dict[str, dict[str, Counter[str]]] = {}
    for trial in {(one["step"], one["trial"]): one for one in read(path)}.values():
        found.setdefault(trial["step"], {}).setdefault(trial["kind"], Counter())[trial["outcome"]] += 1
    return {step: {kind: dict(n) for kind, n in kinds.items()} for step, kinds in found.items()}


def counts_of_page() -> dict[str, dict[str, dict[str, int]]]:
    """The counts that docs/reliability.md shows."""
    found: dict[str, dict[str, dict[str, int]]] = json.loads(COUNTS.read_text("utf-8"))
    return found


def table(found: dict[str, dict[str, dict[str, int]]]) -> str:
    """The counts, a row a kind and a row a step."""
    by_kind: dict[str, Counter[str]] = {}
    by_step: dict[str, Counter[str]] = {}
    for step, kinds in found.items():
        for kind, outcomes in kinds.items():
            by_kind.setdefault(kind, Counter()).update(outcomes)
            by_step.setdefault(step, Counter()).update(outcomes)
    total = sum(sum(one.values()) for one in by_step.values())
    lines = [f"{total:,} faults.", "", *_rows("Fault", by_kind), "", *_rows("Where", by_step)]
    return "\n".join(lines)


def _rows(title: str, rows: dict[str, Counter[str]]) -> Iterator[str]:
    yield f"| {' | '.join((title, 'tried', *WHOLE, 'otherwise'))} |"
    yield f"| --- |{' ---: |' * (len(WHOLE) + 2)}"
    for name, found in sorted(rows.items()):
        all_ = sum(found.values())
        good = [found[one] for one in WHOLE]
        yield f"| {name} | {all_} | {' | '.join(map(str, good))} | {all_ - sum(good)} |"


def write_table(path: Path) -> None:
    """Write the counts beside the page, and the table into it."""
    found = counts(path)
    COUNTS.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", "utf-8")
    before, _, rest = PAGE.read_text("utf-8").partition(_BEGIN)
    after = rest.partition(_END)[2]
    PAGE.write_text(f"{before}{_BEGIN}\n{table(found)}\n{_END}{after}", "utf-8")


def main(arguments: list[str]) -> int:
    """Run; 1 if a trial did not come out whole."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__)
    parser.add_argument("--step", action="append", choices=list(jobs()), help="only these; default: all")
    parser.add_argument("--each", type=int, default=10_000, help="at most so many trials of a step")
    parser.add_argument("--seconds", type=float, default=600.0, help="length of this piece")
    parser.add_argument("--seed", type=int, default=0, help="another one tries other power cuts and pairs")
    parser.add_argument("--out", type=Path, default=Path("faults.jsonl"), help="the trials, a line each")
    parser.add_argument("--table", action="store_true", help="write docs/reliability.{json,md} from --out")
    options = parser.parse_args(arguments)
    if options.table:
        write_table(options.out)
        return 0
    logging.disable(logging.CRITICAL)  # a disturbed command says much
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    until, failed = time.monotonic() + options.seconds, 0
    with tempfile.TemporaryDirectory(prefix="vidloop-soak-") as folder:
        for name, job in jobs().items():
            if (not options.step or name in options.step) and time.monotonic() < until:
                failed += work(job, options, until, Path(folder))
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
