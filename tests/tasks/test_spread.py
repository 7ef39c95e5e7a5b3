"""Units in processes of their own, one for each GPU; on this machine the processes stand in for GPUs."""

from __future__ import annotations

import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from data.errors import StageFailed, UserError
from data.records import Prompt
from data.store import Store
from flows.config.load import load_recipe
from flows.config.resolve import finetune_settings, open_round
from flows.rounds.run_round import play_stage
from tasks import generate, spread
from tasks.context import ClipJob, RoundContext
from tasks.networks import networks_told, report_network
from tasks.shared import Shared
from tasks.units import Runner
from tests.tiny_round import Tiny, build_tiny_wan


@dataclass(frozen=True)
class Noting:
    """A unit that writes down which GPU it saw; `fails` with an error, or ends its process."""

    folder: Path
    name: str
    fails: str = ""
    spreads: bool = True

    def run(self) -> None:
        (self.folder / self.name).write_text(f"{os.environ.get('CUDA_VISIBLE_DEVICES')} {os.getpid()}")
        match self.fails:
            case "stage":
                raise StageFailed("generate", "too large")
            case "local":

                class Unknown(Exception):
                    """Nobody elsewhere knows this class."""

                raise Unknown("what happened")
            case "once" if not (self.folder / "died").exists():
                (self.folder / "died").touch()
                os._exit(3)


@dataclass(frozen=True)
class Reporting:
    """A unit that says which network it ran, and where."""

    spreads: bool = True

    def run(self) -> None:
        report_network("policy", f"a network in process {os.getpid()}")


@dataclass(frozen=True)
class Holding:
    """A unit that writes down where it found what it shares with others."""

    folder: Path
    name: str
    held: Shared[list[str]]
    spreads: bool = True

    def run(self) -> None:
        (self.folder / self.name).write_text(f"{os.getpid()} {id(self.held.value)} {len(self.held.value)}")


def seen(folder: Path, name: str) -> tuple[str, int]:
    device, pid = (folder / name).read_text().split()
    return device, int(pid)


def test_units_go_to_a_process_for_each_gpu_and_come_back_with_their_errors(tmp_path: Path) -> None:
    with spread.spread_over(["3", "5"], slots=2):
        units = [Noting(tmp_path, f"unit{i}") for i in range(4)]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(spread.run, units))
        found = [seen(tmp_path, unit.name) for unit in units]
        assert {device for device, _ in found} == {"3", "5"}
        pids = {pid for _, pid in found}
        assert len(pids) == 2
        assert os.getpid() not in pids

        with pytest.raises(StageFailed, match="too large") as failed:
            spread.run(Noting(tmp_path, "fails", "stage"))
        assert failed.value.stage == "generate"
        with pytest.raises(RuntimeError, match="Unknown: what happened"):
            spread.run(Noting(tmp_path, "fails", "local"))

        with pytest.raises(ConnectionError, match="ended in the middle"):
            spread.run(Noting(tmp_path, "dies", "once"))
        for i in range(4):  # the other slot of the dead process, and both of the new one, work
            spread.run(Noting(tmp_path, f"after{i}", "once"))
        assert {seen(tmp_path, f"after{i}")[0] for i in range(4)} == {"3", "5"}

        spread.run(Noting(tmp_path, "here", spreads=False))
        assert seen(tmp_path, "here")[1] == os.getpid()
        heard: list[tuple[str, str]] = []
        with networks_told(lambda *told: heard.append(told)):
            spread.run(Reporting())
        ((role, line),) = heard
        assert role == "policy"
        assert line.startswith("a network in process ")
        assert not line.endswith(f" {os.getpid()}")
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)


def test_what_units_share_goes_to_each_process_once(tmp_path: Path) -> None:
    shared = Shared([f"a prompt of some length, number {number}" for number in range(8000)])
    units = [Holding(tmp_path, f"unit{number}", shared) for number in range(6)]
    assert all(len(pickle.dumps(unit)) < 1000 for unit in units)
    with spread.spread_over(["3", "5"], slots=2), ThreadPoolExecutor(4) as pool:
        list(pool.map(spread.run, units))
    found = {tuple((tmp_path / unit.name).read_text().split()) for unit in units}
    assert {length for _, _, length in found} == {"8000"}
    assert len({pid for pid, _, _ in found}) == len(found) == 2  # in each process one object


def test_a_unit_of_a_large_stage_is_small_and_the_same_where_it_arrives(tiny: Tiny) -> None:
    context = opened(tiny)
    texts = [f"a prompt of some length that a person wrote, number {number}" for number in range(8000)]
    jobs = [
        ClipJob(Prompt(f"p{n}", text, "falling down", "", "train", "file"), n) for n, text in enumerate(texts)
    ]
    units = generate.shards(replace(context.generation, batch_size=16), context.policy, jobs)
    data = pickle.dumps(units[7])
    assert len(data) < 20_000
    again = pickle.loads(data)
    assert again == units[7]
    assert again.keys == units[7].keys
    assert list(again.stage_prompts.value) == texts


def test_one_gpu_needs_no_process(tmp_path: Path) -> None:
    with spread.spread_over(["0"], slots=2):
        spread.run(Noting(tmp_path, "unit"))
    assert seen(tmp_path, "unit")[1] == os.getpid()


def test_all_gpus_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert spread.gpus("cuda:all") == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-7")
    assert spread.gpus("cuda:all") == ["4", "GPU-7"]
    assert spread.gpus("cuda") == spread.gpus("cuda:1") == spread.gpus("cpu") == []


def test_every_gpu_is_locked_in_one_order(monkeypatch: pytest.MonkeyPatch) -> None:
    class Card:
        def __init__(self, index: int) -> None:
            self.uuid = "zyx"[index]

    monkeypatch.delenv(spread.DEVICE, raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.setattr("torch.cuda.get_device_properties", Card)
    assert spread.lock_names("cuda:all") == ["GPU-x", "GPU-y", "GPU-z"]
    assert spread.lock_names("cuda:1") == ["GPU-y"]
    assert spread.lock_names("cuda") == ["GPU-z"]
    assert spread.lock_names("cuda:3") == spread.lock_names("cpu") == []


def test_a_machine_without_a_gpu_says_so(tiny: Tiny) -> None:
    context = opened(tiny, "model.device=cuda:all")
    with pytest.raises(UserError, match="no usable GPU"):
        play_stage("generate", context, Runner())


@pytest.mark.slow
@pytest.mark.parametrize("experts", [False, True])
def test_what_is_made_is_that_of_one_process(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, experts: bool
) -> None:
    options: tuple[str, ...] = ()
    stages = ["generate", "score"]
    if experts:
        # all that a process must be told of: two networks, in fewer bits, with reference errors for each
        build_tiny_wan(tmp_path / "a14b", 0.875)
        options = (
            "model.family=wan-experts", f"model.path={tmp_path / 'a14b'}", "model.quantise=fp8-storage",
            "generate.steps=6", "generate.guidance_2=1.5", "finetune.expert=both", "finetune.objective=dpo",
            "finetune.steps=2", "finetune.fixed_noise_samples=2", "finetune.reference_errors=stored", "finetune.processes=1",
        )  # fmt: skip
        stages += ["curate", "finetune"]
    stores = []
    for name, found in (("one", []), ("two", ["0", "1"])):
        monkeypatch.setattr(spread, "gpus", lambda device, found=found: found)
        there = tiny.at(tiny.folder / name)
        context = opened(there, *options)
        for stage in stages:
            result = play_stage(stage, context, Runner())
            assert result.cached_shards == 0
            assert result.failed == 0
        stores.append(context.store)
    one, two = stores
    for stage in (*stages, *(["reference"] if experts else [])):
        alone = {manifest.key: manifest.digest for manifest in one.manifests(stage)}
        shared = {manifest.key: manifest.digest for manifest in two.manifests(stage)}
        assert alone == shared
        assert len(alone) > (0 if stage == "curate" else 1)


def opened(tiny: Tiny, *changes: str) -> RoundContext:
    return open_round(
        load_recipe(str(tiny.recipe), list(changes)), Store.open(tiny.store, create=True), "run"
    )


def test_training_takes_every_gpu_too(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread, "visible", lambda: ["0", "1", "2"])
    recipe = str(tiny.recipe)
    assert finetune_settings(load_recipe(recipe, ["model.device=cuda:all"])).processes == 3
    assert (
        finetune_settings(load_recipe(recipe, ["model.device=cuda:all", "finetune.processes=2"])).processes
        == 2
    )
    # A step of two pairs has no work for a third process.
    two = load_recipe(recipe, ["model.device=cuda:all", "finetune.batch_size=2", "finetune.micro_batch=null"])
    assert finetune_settings(two).processes == 2
    assert finetune_settings(load_recipe(recipe, [])).processes == 1
