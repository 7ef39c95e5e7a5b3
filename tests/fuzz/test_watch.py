"""The watch that the fuzzer and the replay share tells what is wrong: else a fuzzer that finds nothing says nothing."""

from __future__ import annotations

import itertools
import time

import pytest

from data.errors import DataError
from data.json_text import parse_json
from tests.fuzz.target import Target
from tests.fuzz.watch import MEGABYTES, Watch


def read(data: bytes) -> None:
    if data == b"refused":
        raise DataError("as it says")
    if data == b"memory":
        assert len(bytearray(b"x") * ((MEGABYTES + 50) << 20)) > 0
    if data == b"foreseen by nobody":
        parse_json(b"{")


@pytest.fixture
def watch() -> Watch:
    return Watch(Target("test", read, lambda: ()))


def test_what_is_read_or_refused_is_no_finding(watch: Watch) -> None:
    assert watch.give(b"") is None
    assert watch.give(b"refused") is None
    assert watch.inputs == 2


def test_another_exception_is_one_with_our_innermost_line(watch: Watch) -> None:
    found = watch.give(b"foreseen by nobody")
    assert found is not None
    assert found.kind == "JSONDecodeError"
    assert found.where.startswith("data/json_text.py:")
    assert "Expecting property name" in found.text


def test_memory_is_one_and_the_next_input_is_judged_by_itself(watch: Watch) -> None:
    found = watch.give(b"memory")
    assert found is not None
    assert found.kind == "memory"
    assert watch.peak > MEGABYTES
    assert watch.give(b"") is None


def test_processor_time_is_one(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(step=3.0)
    monkeypatch.setattr(time, "process_time", lambda: next(clock))
    found = watch.give(b"")
    assert found is not None
    assert found.kind == "time"
    assert watch.slowest == 3.0
