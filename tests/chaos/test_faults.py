"""A sample of the faults that `python -m tests.chaos.soak` does all of, and whether the harness itself can tell."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.chaos import file_jobs, machine_faults, round_jobs, soak, wire_faults
from tests.chaos.crash_states import CUTS, Record
from tests.chaos.file_layer import Fault, FileLayer
from tests.chaos.trial import WHOLE, Bench, Job, Trial, in_child, sample


class Careless(Job):
    """Writes a file as one who has not thought of it; `how` says what was forgotten."""

    name = "careless"

    def __init__(self, how: str) -> None:
        self.how = how

    def run(self, root: Path) -> None:
        target = root / ("answer" if self.how == "in place" else "draft")
        with open(target, "w") as file:
            file.write("the whole answer")
            if self.how != "no fsync of the file":
                file.flush()
                os.fsync(file.fileno())
        if self.how != "in place":
            os.replace(target, root / "answer")
        if self.how != "no fsync of the folder":
            folder = os.open(root, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)

    def kept(self, root: Path) -> dict[str, bytes]:
        return {"answer": (root / "answer").read_bytes()} if (root / "answer").exists() else {}

    def check(self, root: Path) -> None:
        assert self.kept(root).get("answer", b"the whole answer") == b"the whole answer"

    def left(self, root: Path) -> list[str]:
        return [path.name for path in root.iterdir() if path.name != "answer"]


@pytest.mark.parametrize(
    ("how", "found"),
    [
        ("nothing forgotten", set()),
        ("no fsync of the file", {"torn"}),
        ("no fsync of the folder", {"lost"}),
        ("in place", {"torn"}),
    ],
)
def test_the_harness_finds_what_a_careless_writer_forgot(how: str, found: set[str], tmp_path: Path) -> None:
    bench = Bench(Careless(how), tmp_path / "bench")
    trials = [one for one in bench.trials() if "kill" in one.kind or "power cut" in one.kind]
    trials.append(Trial("killed, run again, power cut", "1.0.1"))
    outcomes = {trial.id: bench.attempt(trial).outcome for trial in trials}
    assert set(outcomes.values()) & {"torn", "lost"} == found, outcomes


def test_the_layer_sees_every_operation_and_nothing_outside(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    root.mkdir()
    layer = FileLayer(root, keep=True)
    with layer():
        elsewhere.write_text("not ours")
        (root / "folder").mkdir()
        (root / "folder" / "a").write_bytes(b"abc")
        with open(root / "folder" / "a", "ab") as file:
            file.write(b"def")
            file.flush()
            os.fsync(file.fileno())
        os.link(root / "folder" / "a", root / "b")
        os.replace(root / "b", root / "c")
        (root / "c").unlink()
        (root / "nothing").unlink(missing_ok=True)
        descriptor = os.open(root / "d", os.O_WRONLY | os.O_CREAT)
        os.write(descriptor, b"ghi")
        os.close(descriptor)
    assert [(one.kind, one.path, one.data) for one in layer.operations] == [
        ("mkdir", "folder", b""), ("create", "folder/a", b""), ("write", "folder/a", b"abc"),
        ("write", "folder/a", b"def"), ("sync", "folder/a", b""), ("link", "folder/a", b""),
        ("rename", "b", b""), ("unlink", "c", b""), ("create", "d", b""), ("write", "d", b"ghi"),
    ]  # fmt: skip
    assert layer.operations[3].offset == 3


def test_a_power_cut_takes_what_was_not_synced_and_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "before").write_text("old")
    layer, record = FileLayer(root, keep=True), Record().begin(root)
    with layer():
        with open(root / "draft", "wb") as file:
            file.write(b"12345678")
            file.flush()
            os.fsync(file.fileno())
        os.replace(root / "draft", root / "before")
    Record.of(root, layer.operations, record)
    count = len(layer.operations)
    assert record.cut("lost", count).files() == {"before": b"old"}
    assert {how: record.cut(how, 2).files()["draft"] for how in CUTS if how != "lost"} == {
        "empty": b"", "zeros": bytes(8), "torn": b"1234",
    }  # fmt: skip
    assert record.cut("empty", count).files() == {"before": b"12345678"}
    seen = {tuple(sorted(record.by_lot(count, random.Random(n)).files().items())) for n in range(40)}
    # The draft's name and the rename are each there or not; the content is safe.
    assert seen == {
        (("before", b"old"),),
        (("before", b"old"), ("draft", b"12345678")),
        (("before", b"12345678"),),
    }


def test_a_fault_comes_at_its_operation_and_a_full_disk_stays_full(tmp_path: Path) -> None:
    def work(root: Path) -> None:
        for name in "abc":
            (root / name).write_text(name)

    root = tmp_path / "root"
    root.mkdir()
    assert in_child(lambda: _with(root, Fault("killed", 3), work)).how == "killed"
    assert {path.name: path.read_text() for path in root.iterdir()} == {"a": "a", "b": ""}
    layer = FileLayer(root, Fault("short write, ENOSPC", 1))
    with layer():
        with pytest.raises(OSError, match="No space left"):
            (root / "a").write_text("four")
        with pytest.raises(OSError, match="No space left"):
            (root / "new").write_text("x")
        (root / "b").unlink()
    assert {path.name: path.read_text() for path in root.iterdir()} == {"a": "fo"}


def _with(root: Path, fault: Fault, work: object) -> None:
    with FileLayer(root, fault)():
        work(root)  # type: ignore[operator]


# -- the jobs ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def benches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bench]:
    folder = tmp_path_factory.mktemp("benches")
    return {job.name: Bench(job, folder / str(number)) for number, job in enumerate(file_jobs.JOBS)}


FILES = [job.name for job in file_jobs.JOBS]


@pytest.mark.parametrize("name", FILES)
def test_a_sample_of_all_faults_leaves_all_as_if_nothing_had_been(
    name: str, benches: dict[str, Bench]
) -> None:
    found = [(trial.id, outcome) for trial, outcome in sample(benches[name], 32)]
    assert len(found) >= 30
    assert [one for one in found if one[1].outcome not in WHOLE] == []


@pytest.mark.parametrize("name", [name for name in FILES if name != "facts of runs"])
def test_what_a_command_wrote_is_safe_when_it_ends(
    name: str, benches: dict[str, Bench], tmp_path: Path
) -> None:
    bench = benches[name]
    root = tmp_path / "cut"
    bench.record.cut("lost", len(bench.operations)).write(root)
    assert bench.job.kept(root).keys() == bench.undisturbed.keys()


@pytest.mark.parametrize("name", ["store", "first champion", "checkpoints"])
def test_what_a_killed_run_had_not_made_safe_is_safe_when_the_next_one_ends(
    name: str, benches: dict[str, Bench]
) -> None:
    bench = benches[name]
    places = [place for place, one in enumerate(bench.operations) if one.kind == "sync folder"]
    for place in places:
        # 0.1: a power cut at the end that takes everything that was not synced.
        found = bench.attempt(Trial("killed, run again, power cut", f"{place}.0.1"))
        assert found.outcome == "whole", (bench.operations[place], found)


@pytest.mark.slow
@pytest.mark.parametrize("job", round_jobs.JOBS, ids=lambda job: job.name)
def test_a_sample_of_faults_in_a_round(job: Job, tmp_path: Path) -> None:
    count = {"evaluate": 6, "whole round": 2, "bundle of a round": 3}.get(job.name, 12)
    found = [(trial.id, outcome) for trial, outcome in sample(Bench(job, tmp_path / "bench"), count)]
    assert [one for one in found if one[1].outcome not in WHOLE] == []


@pytest.mark.slow
@pytest.mark.parametrize("job", [*machine_faults.JOBS, *wire_faults.JOBS], ids=lambda job: job.name)
def test_a_sample_of_faults_of_machine_and_wire(job: Job, tmp_path: Path) -> None:
    bench = soak.bench_of(job)(job, tmp_path / "bench")
    found = [(trial.id, outcome) for trial, outcome in sample(bench, 5)]
    assert [one for one in found if one[1].outcome not in WHOLE] == []


def test_the_page_shows_the_counts() -> None:
    counts = soak.counts_of_page()
    page = soak.PAGE.read_text("utf-8")
    assert soak.table(counts) in page
    assert sum(n for kinds in counts.values() for found in kinds.values() for n in found.values()) >= 10_000
    bad = {outcome for kinds in counts.values() for found in kinds.values() for outcome in found} - set(WHOLE)
    assert not bad
