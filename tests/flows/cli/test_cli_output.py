"""Where a command's output cannot go on, the command does: every command, and every way in which it may fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import typer

from flows.cli.main import commands
from tests.played import RECIPE, Played, played, played_once  # noqa: F401  (fixtures)
from tests.tiny_round import ROOT

# One process imports everything once; each case is a fork of it that does what a process of its own would.
FORKS = """
import io, json, os, sys, threading
from flows.cli.main import commands, main
commands()
told = []
def nobody(read):
    os.close(read)
def ten_bytes(read):
    os.read(read, 10)
    os.close(read)
def all(read):
    while os.read(read, 65536):
        pass
for words, way in json.load(sys.stdin):
    read, write = os.pipe()
    errors = os.memfd_create("errors")
    reader = threading.Thread(target={"nobody": nobody, "ten bytes": ten_bytes}.get(way, all), args=[read])
    if way == "nobody":
        reader.run()
    child = os.fork()
    if not child:
        if way == "full":
            write = os.open("/dev/full", os.O_WRONLY)
        os.dup2(write, 1)
        os.dup2(errors, 2)
        os.closerange(3, 20)
        encoding = "ascii" if way == "ascii" else "utf-8"
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), encoding)
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), encoding, line_buffering=True)
        sys.argv = ["vidloop", *words]
        main()
    os.close(write)
    if way != "nobody":
        reader.start()
    _, status = os.waitpid(child, 0)
    if way != "nobody":
        reader.join()
    os.lseek(errors, 0, 0)
    told.append([os.waitstatus_to_exitcode(status), os.read(errors, 1 << 20).decode()])
    os.close(errors)
print(json.dumps(told))
"""
LOST = "vidloop: standard output could not be written to the end: No space left on device\n"
WAYS = ("all", "nobody", "ten bytes", "full", "ascii")


def names(command: Any, before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every command, as its words."""
    inner = getattr(command, "commands", {})
    found = [before] if before and command.callback is not None else []
    return [*found, *(name for word in inner for name in names(inner[word], (*before, word)))]


def forked(commands: Sequence[Sequence[str]]) -> dict[str, list[tuple[int, str]]]:
    """(exit code, standard error) of each command, in every way."""
    cases = [(words, way) for way in WAYS for words in commands]
    done = subprocess.run(
        [sys.executable, "-c", FORKS], input=json.dumps(cases), env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=1200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = iter(json.loads(done.stdout))
    return {way: [tuple(next(told)) for _ in commands] for way in WAYS}


def test_the_help_of_every_command_ends_well() -> None:
    every = names(typer.main.get_command(commands()))
    assert {("round",), ("champion", "show"), ("study", "report")} <= set(every)
    told = forked([(*words, "--help") for words in [(), *every]])
    assert {way: set(found) for way, found in told.items()} == {
        way: {(2, LOST) if way == "full" else (0, "")} for way in WAYS
    }


@pytest.mark.slow
def test_commands_do_what_they_are_for_whatever_becomes_of_their_output(played: Played) -> None:
    clips = "SELECT *, '\u2212' FROM clips, range(20)"  # more than a pipe holds, with a character that is no ASCII
    well = [
        ["plan"], ["plan", "--resolved"], ["round", "--dry-run"], ["query", clips], ["query", clips, "-f", "csv"],
        ["query", clips, "-f", "json"], ["report"], ["compare"], ["champion", "show"], ["gc"], ["doctor"],
        ["round", "--plain"],
    ]  # fmt: skip
    wrong = [["explain", "0" * 64], ["query", "no SQL \u2212"], ["plan", "--no-such-option"]]
    for way, found in forked([*well, *wrong]).items():
        assert found[: len(well)] == [(2, LOST) if way == "full" else (0, "")] * len(well), way
        assert {code for code, _ in found[len(well) :]} == {2}, way
        assert all(said and "not foreseen" not in said for _, said in found[len(well) :]), way
    assert len(list(played.folder.glob("store/rounds/*/summary.json"))) == 1 + len(WAYS), (
        "each round was played"
    )


@pytest.mark.parametrize("module", ["flows", "flows.cli", "vidloop"])
def test_each_module_that_looks_like_the_command_is(module: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    done = subprocess.run(
        [sys.executable, "-m", module, "rounds"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "No such command 'rounds'" in done.stderr


def test_a_command_whose_standard_output_is_closed_runs(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "flows", "plan", "--recipe", RECIPE, "--store", str(tmp_path / "store")]
    done = subprocess.run(
        ["bash", "-c", 'exec "$@" >&-', "bash", *words], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
