"""Any damage to any file of a store: the same command heals it, or names the file and one command that does."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from tests.chaos.damage import COMMANDS, DAMAGES, HALF, KINDS, build, run
from tests.no_override import no_override
from tests.tiny_round import Ended, Tiny, committed

assert COMMANDS
READ_ONLY = ("plan", "query", "explain", "gc", "champion", "report")
# A round takes seconds: a quick run plays one after these, `make test-all` after every damage of every kind.
PLAYED = {
    ("manifest of score", "one bit flipped"),
    ("manifest of finetune", "truncated"),
    ("video", "a folder"),
}
# What a report is made of; it takes seconds.
REPORTED = ("manifest of evaluate", "evaluations", "clips", "scores", "video", "summary", "report", "format")


def cases(quick: set[tuple[str, str]]) -> list[ParameterSet]:
    return [
        pytest.param(kind, damage, marks=[] if (kind, damage) in quick else pytest.mark.slow)
        for kind in KINDS
        for damage in DAMAGES
    ]


ONE_EACH = {(kind, [*DAMAGES][place % (len(DAMAGES) - 1)]) for place, kind in enumerate(KINDS)}
NAMED = re.compile(r"`(vidloop [^`]+|chmod [^`]+)`")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return build(tmp_path_factory.mktemp("damage"))


@pytest.fixture
def copied(finished: Tiny, tmp_path: Path) -> Iterator[Tiny]:
    store = tmp_path / "store"
    shutil.copytree(finished.store, store, symlinks=True)
    with no_override():
        yield finished.at(store)


def test_every_file_of_the_store_is_of_a_kind(finished: Tiny) -> None:
    known = {path for pattern in KINDS.values() for path in finished.store.glob(pattern)}
    held = {path for path in finished.store.rglob("*") if path.is_file()}
    strange = {path.relative_to(finished.store).parts[0] for path in held - known}
    assert strange <= {"aside"} | {"locks"}
    assert all(any(finished.store.glob(pattern)) for pattern in KINDS.values())


def damaged(kind: str, damage: str, tiny: Tiny) -> Path:
    """Damage the first file of a kind; returns its path."""
    path = sorted(tiny.store.glob(KINDS[kind]))[0]
    DAMAGES[damage](path)
    return path


@pytest.mark.parametrize(("kind", "damage"), cases(ONE_EACH))
def test_what_only_reads_works_or_names_the_file_and_one_command_that_heals(
    kind: str, damage: str, copied: Tiny
) -> None:
    harmed = damaged(kind, damage, copied)
    readers = [name for name in READ_ONLY if name != "report" or kind in REPORTED]
    refused = {name: ended for name in readers if (ended := read(name, copied)).code}
    for ended in refused.values():
        heal(ended, copied, harmed)
    if not refused and (ended := run("scrub", "--heal", "--store", str(copied.store))).code:
        heal(ended, copied, harmed)
    for name in readers:
        assert read(name, copied).code == 0, (name, read(name, copied).err)
    again = run("scrub", "--store", str(copied.store))
    assert "nothing is damaged" in again.out, again.err


@pytest.mark.parametrize(("kind", "damage"), cases(PLAYED))
def test_what_computes_heals_by_itself_or_by_one_command_that_it_names(
    kind: str, damage: str, copied: Tiny
) -> None:
    before = committed(copied.store)
    harmed = damaged(kind, damage, copied)
    left = (
        harmed.read_bytes() if harmed.is_file() and os.access(harmed, os.R_OK, effective_ids=True) else None
    )
    played(copied, kind, harmed)
    if (damage == "one bit flipped" and committed(copied.store) != before) or not readable(harmed):
        # Of the size that it had, and read by nobody: what is trusted until it is read, or scrubbed.
        if (ended := run("scrub", "--heal", "--store", str(copied.store))).code:
            heal(ended, copied, harmed)
        played(copied, kind, harmed)
    after = committed(copied.store)
    assert {name: after.get(name) for name in before} == before
    name = harmed.relative_to(copied.store).as_posix()
    if left is not None and name in before and left != before[name]:
        kept = [path.read_bytes() for path in (copied.store / "aside").rglob("*") if path.is_file()]
        assert left in kept


def readable(path: Path) -> bool:
    return not path.exists() or os.access(path, os.R_OK, effective_ids=True)


def played(tiny: Tiny, kind: str, harmed: Path) -> None:
    for command in works(tiny, kind):
        ended = run(*command)
        if ended.code:
            heal(ended, tiny, harmed)
            ended = run(*command)
        assert ended.code == 0, (command, ended.err)


def works(tiny: Tiny, kind: str) -> list[tuple[str, ...]]:
    """Commands that write, by which all that the store holds is made."""
    found = [
        ("round", *tiny.args("--plain", "--set", "policy=champion")),
        ("round", *tiny.args("--plain")),
    ]
    if "record" in kind or "champion" in kind or kind == "lock":
        found.append(("improve", *tiny.args("--plain")))
    if kind == "checkpoint":
        found.append(("round", *tiny.args(*HALF)))
    return found


def read(name: str, tiny: Tiny) -> Ended:
    """A command that writes nothing but, of a report, its page."""
    store = ("--store", str(tiny.store))
    key = sorted(path.stem for path in tiny.store.glob("manifests/curate/*.json"))[:1] or ["0"]
    views = "SELECT * FROM (SELECT count(*) FROM timings), (SELECT count(*) FROM lineage), scores_wide, names"
    match name:
        case "plan":
            return run("plan", *tiny.args())
        case "query":
            return run("query", views, *store)
        case "explain":
            return run("explain", key[0], *tiny.args())
        case "champion":
            return run("champion", "show", *store)
        case _:
            return run(name, *store)


def heal(ended: Ended, tiny: Tiny, harmed: Path) -> None:
    """Type the command that the message names; it names the file, too."""
    # Before it come log lines, and what logging says of streams of commands before in this process.
    said = " ".join(ended.err.rpartition("vidloop: ")[2].split())
    assert harmed.name[:64] in said or harmed.stem in said or harmed.parent.name in said, said
    named = NAMED.search(said)
    assert named, said
    words = shlex.split(named[1].replace(str(harmed), str(harmed)))
    assert str(tiny.store) in named[1], said
    if words[0] == "chmod":
        Path(words[-1]).chmod(0o644)
        return
    done = run(*words[1:], *(["--plain"] if words[1] == "round" else []))
    assert done.code == 0, done.err
