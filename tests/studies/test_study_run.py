"""A whole tiny study through the command line: the rows it leaves, what a second call costs, and kill -9."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from data.queries import run_query
from data.records import Studied
from data.store import Store
from tests.tiny_round import ROOT, TRAIN, Ended
from tests.tiny_study import TinyStudy

# jinja2 is the local judge's own: transformers fills its chat template with it.
BLOCKED = "import sys\nfor name in ('prefect', 'matplotlib'):\n    sys.modules[name] = None\n"


def rows(store: Path) -> list[Studied]:
    opened = Store.open(store)
    return [row for one in opened.manifests("study") for row in opened.read(one.key, "studies")]


@pytest.fixture
def without(tmp_path: Path) -> dict[str, str]:
    """An environment in which neither this process's children nor theirs can import Prefect or plots."""
    folder = tmp_path / "blocked"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(BLOCKED)
    return {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


@pytest.mark.slow
def test_a_whole_study_without_prefect_and_then_again(
    tiny_study: TinyStudy, vidloop: Callable[..., Ended], without: dict[str, str], tmp_path: Path
) -> None:
    planned = vidloop(*tiny_study.args("--dry-run"), **without)
    assert planned.code == 0, planned.err
    assert "main: 10 cells" in planned.out
    assert not tiny_study.store.exists()

    ended = vidloop(*tiny_study.args(), **without)
    assert ended.code == 0, ended.err
    found = rows(tiny_study.store)
    counts = Counter(row.variant for row in found if row.best_of == 1)
    assert counts == {"tuning": 6, "main": 10, "in-a-row": 4, "noise": 4, "category-heldout": 2}
    assert len([row for row in found if row.best_of > 1]) == 2 * 2 * 2

    # Equal budgets: clips, labels and steps of every training of the main grid.
    main = [row for row in found if row.variant == "main" and row.best_of == 1]
    assert {(row.clips, row.labels, row.steps, row.batch) for row in main} == {(12, 12, 2, 4)}
    # Graded feedback accepts as many as pass the judge, to the rounding of a prompt's share.
    for seed in (0, 1):
        taught = {(row.feedback, row.objective): row.accepted for row in main if row.seed == seed}
        assert abs(taught["flow", "sft"] - taught["judge-binary", "sft"]) <= 3
    # A judge of random weights may say the same of all clips of a prompt, which leaves it no pair; flow does not.
    measured = [row for row in main if row.before is not None]
    without_pairs = {(row.feedback, row.outcome.split(":")[0]) for row in main if row.before is None}
    assert without_pairs <= {("judge-binary", "no training data")}
    assert {row.objective for row in measured} == {"unfiltered", "sft", "dpo-anchor"}
    # The clips of a seed are one pool, and before is one figure.
    assert len({(row.seed, row.before) for row in measured}) == len({row.seed for row in main})
    taught_clips = 4 * sum(category != TRAIN[0][1] for _, category in TRAIN)
    assert {row.labels for row in found if row.variant == "category-heldout"} == {taught_clips}
    in_a_row = [row for row in found if row.variant == "in-a-row" and row.seed == 0]
    assert sorted(row.rounds for row in in_a_row) == [1, 2]
    # The first round in a row, and no noise, are the main grid's own cells: nothing was trained again.
    trained = Store.open(tiny_study.store).manifests("finetune")
    assert len(trained) == 6 + 10 + 2 + 2 + 2

    _, counted = run_query(Store.open(tiny_study.store), "SELECT count(*) FROM studies")
    assert counted == [(len(found),)]

    again = vidloop(*tiny_study.args(), **without)
    assert again.code == 0, again.err
    assert f"0 cells played, {6 + 10 + 4 + 4 + 2 + 2} were there, 0 left" in again.out
    assert "26 trainings" in vidloop(*tiny_study.args("--dry-run")).out

    # The report needs no model; what was written by hand survives.
    out = tmp_path / "docs"
    report = ["study", "report", "--recipe", tiny_study.file, "--store", tiny_study.store, "--out", out]
    assert vidloop(*report).code == 0
    page = out / "study.md"
    page.write_text(page.read_text().replace("Nothing has been written here yet.", "Looked at: fine."))
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    ended = vidloop(*report)
    assert ended.code == 0, ended.err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == first
    entries = json.loads((out / "study.json").read_text())
    keys = ["variant", "feedback", "objective", "seed", "rounds", "noise", "before", "after", "ci_low",
            "ci_high", "n", "clips", "steps"]  # fmt: skip
    assert all(list(entry)[: len(keys)] == keys for entry in entries)
    assert {entry["variant"] for entry in entries} == {"main", "noise", "category-heldout"}
    assert len([entry for entry in entries if entry["rounds"] == 2]) == 2


@pytest.mark.slow
def test_killed_and_called_again(
    tiny_study: TinyStudy, vidloop: Callable[..., Ended], tmp_path: Path
) -> None:
    small = ["--only", "main", "--set", "seeds=[0]", "--set", "best_of=null"]
    command = [sys.executable, "-m", "flows", *tiny_study.args(*small)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def trained() -> set[str]:
        return {path.stem for path in tiny_study.store.glob("manifests/finetune/*.json")}

    def wait_for(count: int, process: subprocess.Popen[bytes]) -> None:
        while len(trained()) < count:
            assert process.poll() is None, "the study ended before it was killed"
            time.sleep(0.05)

    # The one that gives out work, in the middle of tuning.
    first = subprocess.Popen(command, env=environment, cwd=ROOT)
    wait_for(2, first)
    workers = children(first.pid)
    first.kill()
    first.wait()
    deadline = time.monotonic() + 60
    while any(alive(pid) for pid in workers):
        assert time.monotonic() < deadline, "workers outlive the process that started them"
        time.sleep(0.1)
    before = trained()

    # A worker, a little later: another one takes its work up.
    second = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE)
    wait_for(len(before) + 1, second)
    os.kill(children(second.pid)[0], signal.SIGKILL)
    out, _ = second.communicate(timeout=900)
    assert second.returncode == 0, out.decode()
    assert trained() >= before
    assert len(trained()) == 6 + 5
    assert Counter(row.variant for row in rows(tiny_study.store)) == {"tuning": 6, "main": 5}


@pytest.mark.slow
def test_a_time_limit_ends_cleanly_and_a_failure_is_told(
    tiny_study: TinyStudy, vidloop: Callable[..., Ended]
) -> None:
    alone = ["--only", "main", "--set", "seeds=[0]", "--set", "workers=0", "--set", "best_of=null"]
    ended = vidloop(*tiny_study.args(*alone, "--max-minutes", "0.01"))
    assert ended.code == 0, ended.err
    assert "0 cells played, 0 were there, 11 left; the same command continues" in ended.out

    # The twentieth commit goes wrong, once.
    broken = {"VIDLOOP_FAILPOINT": "store.before_manifest:20", "VIDLOOP_FAILPOINT_ACTION": "raise"}
    ended = vidloop(*tiny_study.args(*alone), **broken)
    assert ended.code == 3
    assert "FAILED: " in ended.out
    assert "RuntimeError: failpoint store.before_manifest:20" in ended.err
    assert "this failed in the study (1 in all)" in ended.err
    _, told = run_query(
        Store.open(tiny_study.store), "SELECT count(*) FROM timings WHERE fact LIKE '%failpoint%'"
    )
    assert told == [(1,)]

    ended = vidloop(*tiny_study.args(*alone))
    assert ended.code == 0, ended.err
    assert Counter(row.variant for row in rows(tiny_study.store)) == {"tuning": 6, "main": 5}


def children(pid: int) -> list[int]:
    """Workers of a study: its children that are no resource tracker."""
    found = []
    for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes():
            found.append(int(one))
    return found


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
