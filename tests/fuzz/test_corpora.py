"""The corpora of the fuzzer, once each: what it found stays found. docs/fuzzing.md says how they are made."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.table import TARGETS
from tests.fuzz.target import Target
from tests.fuzz.watch import MEGABYTES, Watch

CORPORA = Path(__file__).parent / "corpora"


def test_every_corpus_is_of_a_target_and_small() -> None:
    files = [file for file in CORPORA.rglob("*") if file.is_file()]
    assert {file.parent.name for file in files} <= TARGETS.keys()
    assert sum(file.stat().st_size for file in files) < 300_000


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_a_parser_takes_its_corpus(target: Target) -> None:
    """Read, or refused as the parser says that it refuses, in bounded memory. Nothing here is timed."""
    inputs = {f"seed {place}": data for place, data in enumerate(target.seeds())}
    inputs |= {file.name: file.read_bytes() for file in sorted((CORPORA / target.name).glob("*"))}
    watch = Watch(target)
    found = {
        name: finding.text
        for name, data in inputs.items()
        if (finding := watch.give(data)) and finding.kind != "time"
    }
    assert found == {}
    assert watch.inputs == len(inputs)
    assert watch.peak < MEGABYTES
