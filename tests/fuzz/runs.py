"""Runs of targets, each in a process of its own, and what came of them."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import tempfile
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.fuzz.target import Target

CORPORA = Path(__file__).parent / "corpora"
# So many bytes of inputs of one target are kept in the checkout.
_KEPT = 4_000
# A target whose process ends so often by itself is given up.
_ENDS = 20


def fuzz(target: Target, home: Path, inputs: int) -> None:
    """Give a target so many inputs; where one ends its process, another goes on."""
    for part in ("corpus", "seeds", "found"):
        (home / part).mkdir(parents=True, exist_ok=True)
    for place, seed in enumerate(target.seeds()):
        (home / "seeds" / f"seed-{place}").write_bytes(seed)
    for kept in sorted((CORPORA / target.name).glob("*")):
        shutil.copy(kept, home / "seeds" / kept.name)
    runs = _runs(home)
    done = 0
    for _ in range(_ENDS):
        (home / "facts.json").unlink(missing_ok=True)
        before = set((home / "found").iterdir())
        ended = _in_a_process(target, home, inputs - done, len(runs) + 1)
        log = (home / "log").read_text("utf-8", "replace")
        facts: dict[str, Any] = {"inputs": 0, "found": {}}
        if (home / "facts.json").exists():
            facts = json.loads((home / "facts.json").read_text())
        if ended:
            # What libFuzzer keeps is called timeout-..., crash-... and the like.
            kept = sorted(path.name for path in set((home / "found").iterdir()) - before if "-" in path.name)
            facts["found"][f"ended with {ended}"] = {"input": ", ".join(kept), "text": log[-3000:]}
        cover = re.findall(r"cov: (\d+) ", log)
        runs.append(facts | {"cover": int(cover[-1]) if cover else 0})
        (home / "runs.json").write_text(json.dumps(runs, indent=1))
        done += facts["inputs"]
        if done >= inputs:
            return


def tell(folder: Path, names: Iterable[str]) -> int:
    """Print the table of counts of all runs, and what was found; 1 if anything was."""
    print("| target | inputs | corpus | edges | slowest s | peak MB | findings |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    total, slow, high, findings = 0, 0.0, 0.0, []
    for name in names:
        runs = _runs(folder / name)
        if not runs:
            continue
        inputs = sum(run["inputs"] for run in runs)
        corpus = len(list((folder / name / "corpus").iterdir()))
        edges, slowest, peak = (
            max(run.get(key, 0) for run in runs) for key in ("cover", "slowest_s", "peak_mb")
        )
        found = {what: one for run in runs for what, one in run["found"].items()}
        findings += [f"\n{name}: {what}: {one['input']}\n{one['text']}" for what, one in found.items()]
        total, slow, high = total + inputs, max(slow, slowest), max(high, peak)
        print(f"| {name} | {inputs:,} | {corpus} | {edges} | {slowest:.2f} | {peak:.0f} | {len(found)} |")
    print(
        f"| all | {total:,} | | | {slow:.2f} | {high:.0f} | {len(findings)} |",
        *findings,
        sep="\n",
        flush=True,
    )
    return int(bool(findings))


def keep(name: str, home: Path) -> None:
    """Copy the smallest inputs of a corpus, each of which reached what none before it did, into the checkout."""
    left = _KEPT
    (CORPORA / name).mkdir(exist_ok=True)
    for before in (CORPORA / name).iterdir():
        if re.fullmatch(r"[0-9a-f]{12}", before.name):  # others have been put there by hand
            before.unlink()
    for path in sorted((home / "corpus").iterdir(), key=lambda one: (one.stat().st_size, one.name)):
        left -= path.stat().st_size
        if left < 0:
            return
        shutil.copy(path, CORPORA / name / path.name[:12])


def _runs(home: Path) -> list[dict[str, Any]]:
    file = home / "runs.json"
    found: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
    return found


def _in_a_process(target: Target, home: Path, inputs: int, seed: int) -> int:
    """Fuzz in a copy of this process, which has imported everything; returns how it ended."""
    with tempfile.TemporaryDirectory(prefix="vidloop-fuzz-") as scratch, open(home / "log", "wb") as log:
        process = os.fork()
        if process:
            return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        try:
            tempfile.tempdir = scratch
            for stream in (1, 2):
                os.dup2(log.fileno(), stream)
            importlib.import_module("tests.fuzz.child").fuzz(target, home, inputs, seed)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
