"""Fuzz the parsers: `python -m tests.fuzz --folder FOLDER`. See docs/fuzzing.md.

Each target runs in a process of its own, with bounds on time and memory. The corpora and what was found stay in
FOLDER, and a later run goes on from them; `--keep` brings their smallest inputs into the checkout.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import sys
from contextlib import AbstractContextManager
from pathlib import Path

from tests.fuzz import runs
from tests.fuzz.target import Target

# What is looked into: ours, and the one parser that we have in Python from elsewhere.
_INCLUDE = ["data", "flows", "tasks", "models", "rewards", "studies", "yaml"]


def main() -> int:
    """Run the targets one after another; 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="keeps corpora, findings and counts")
    parser.add_argument("--inputs", type=int, default=1_000_000, help="of all targets together")
    parser.add_argument("--only", default="", help="names of targets, with commas")
    parser.add_argument("--keep", action="store_true", help="bring corpora into the checkout; fuzz nothing")
    parser.add_argument(
        "--counts", action="store_true", help="show the counts of the runs so far; fuzz nothing"
    )
    asked = parser.parse_args()
    with contextlib.nullcontext() if asked.counts or asked.keep else _instrumented():
        # Its readers import the whole program, once: each target's process is a copy of this one.
        targets: dict[str, Target] = importlib.import_module("tests.fuzz.table").TARGETS
    chosen = {name: one for name, one in targets.items() if not asked.only or name in asked.only.split(",")}
    folder = asked.folder.absolute()
    if asked.keep:
        for name in chosen:
            runs.keep(name, folder / name)
        return 0
    if not asked.counts:
        for name, count in _counts(chosen, asked.inputs).items():
            print(f"{name}: {count:,} inputs", flush=True)
            runs.fuzz(chosen[name], folder / name, count)
    return runs.tell(folder, chosen)


def _counts(chosen: dict[str, Target], inputs: int) -> dict[str, int]:
    """The least of each target, and the rest by their shares; fewer of all where `inputs` are not enough."""
    least = sum(one.least for one in chosen.values())
    if inputs <= least:
        return {name: max(1, one.least * inputs // least) for name, one in chosen.items()}
    shares = sum(one.share for one in chosen.values())
    more = {name: (inputs - least) * one.share / shares if shares else 0 for name, one in chosen.items()}
    return {name: one.least + round(more[name]) for name, one in chosen.items()}


def _instrumented() -> AbstractContextManager[None]:
    """Modules imported in it tell libFuzzer which of their lines run. Only here is Atheris needed."""
    import atheris

    context: AbstractContextManager[None] = atheris.instrument_imports(include=_INCLUDE)
    return context


if __name__ == "__main__":
    sys.exit(main())
