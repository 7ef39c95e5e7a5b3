"""The training benchmarks' own arithmetic, and the plain side run beside ours at a tiny size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import training_curves, training_pair
from benchmarks.result import Result
from benchmarks.training_equality import distance, equality, told
from benchmarks.training_parts import Shape, Timed, clip_flops, network
from models.families.wan import Wan

TINY = Shape("tiny", 32, 48, 9, 16)
# A learning rate at which eight steps are told apart from those with another.
SMALL = [
    "--size",
    "tiny",
    "--height",
    "32",
    "--width",
    "48",
    "--frames",
    "9",
    "--text-length",
    "16",
    "--rank",
    "4",
    "--pairs",
    "2",
    "--steps",
    "8",
    "--lr",
    "3e-3",
    "--no-compile",
    "--device",
    "cpu",
]
RUNS = {"ours", "control", "plain", "plain-again", "plain-other-kernel", "plain-a-third-time"}


def test_tokens_of_the_published_shape() -> None:
    shape = Shape("1.3b", 480, 832, 33, 512)
    assert shape.latent == (16, 9, 60, 104)
    assert shape.tokens == 14_040


def test_a_block_costs_what_torch_counts() -> None:
    """Between one block and two lies one block's work: its linear layers, counted by torch as products."""
    counted, claimed = [], []
    for layers in (1, 2):
        shape = Shape(TINY.size, TINY.height, TINY.width, TINY.frames, TINY.text_length, layers)
        made = network(shape, torch.device("cpu"), torch.float32)
        x, embeds = torch.randn(1, *shape.latent), torch.randn(1, shape.text_length, 32)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            Wan().predict(made, x, torch.tensor([0.5]), embeds)
        products = counter.get_flop_counts()["Global"]
        counted.append(
            sum(value for op, value in products.items() if op in (torch.ops.aten.addmm, torch.ops.aten.mm))
        )
        claimed.append(clip_flops(made, shape)["linear"])
    assert counted[1] - counted[0] == claimed[1] - claimed[0] > 0


@pytest.mark.slow
def test_both_sides_learn_alike_at_a_tiny_size(tmp_path: Path) -> None:
    result = training_pair.main([*SMALL, "--results", str(tmp_path)])
    found = result.equality
    assert found["ok"]
    assert (found["steps"], found["plain_runs"]) == (8, 4)
    # float32 on a CPU: far closer than what bfloat16 is allowed
    assert found["ours"] < 5e-4
    assert found["ours_all_memory"] < 5e-4
    assert json.loads((tmp_path / "training-pair.json").read_text())["ratio"] == result.ratio


def curves(results: Path, *more: str) -> Result:
    return training_pair.main([*SMALL, "--curves", "--results", str(results), *more])


def sides(results: Path) -> dict[str, int]:
    """Which sides of the curves lie there, and of how many steps."""
    files = (results / "training-pair-curves.sides").iterdir()
    return {path.name: len(json.loads(path.read_text())["losses"]) for path in files}


@pytest.mark.slow
def test_the_curves_alone(tmp_path: Path) -> None:
    result = curves(tmp_path)
    assert result.equality["ok"]
    assert (result.equality["steps"], result.name) == (8, "training-pair-curves")
    assert result.equality["ours"] < 5e-4
    assert sides(tmp_path) == {f"{run}.json": 8 for run in RUNS}


@pytest.mark.slow
def test_curves_that_were_ended_have_ours_and_go_on_with_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine is given back while the second side is at work: what was measured is kept."""

    def ended(*_: object, **__: object) -> Timed:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(training_curves, "plain", ended)
        with pytest.raises(KeyboardInterrupt):
            curves(tmp_path)
    assert sides(tmp_path) == {"ours.json": 8, "control.json": 8}
    assert not (tmp_path / "training-pair-curves.json").exists()
    measured = json.loads((tmp_path / "training-pair-curves.sides" / "ours.json").read_text())
    with monkeypatch.context() as patched:
        patched.setattr(training_curves, "ours", ended)
        result = curves(tmp_path, "--resume")
        # of another question, or if nobody asks for it, nothing is taken up
        with pytest.raises(KeyboardInterrupt):
            curves(tmp_path)
        with pytest.raises(KeyboardInterrupt):
            curves(tmp_path, "--resume", "--rank", "2")
    assert result.details["losses"]["ours"] == measured["losses"]
    assert result.details["runs_of_an_earlier_command"] == ["ours", "control"]
    assert result.equality["ok"]


@pytest.mark.slow
def test_curves_keep_to_their_seconds_and_are_compared_over_what_all_sides_have(tmp_path: Path) -> None:
    result = curves(tmp_path, "--seconds", "0")
    assert sides(tmp_path) == {f"{run}.json": 1 for run in RUNS}
    # All begin with one adapter: a single step tells nobody apart.
    assert (result.equality["steps"], result.equality["ok"]) == (1, False)
    longer = curves(tmp_path, "--resume")
    assert (longer.equality["steps"], longer.details["runs_of_an_earlier_command"]) == (8, [])


PLAIN = ([0.69, 0.60, 0.50], [0.69, 0.61, 0.49], [0.69, 0.59, 0.50])
OTHER_RATE = [0.69, 0.50, 0.30]


def test_the_distance_of_two_curves() -> None:
    assert distance([1.0, 1.0], [1.0, 1.0]) == 0
    assert distance([0.95, 1.0], [1.05, 1.0]) == pytest.approx(0.1 / 2**0.5)
    assert distance([0.95, 1.0], [1.05, 1.0]) == distance([1.05, 1.0], [0.95, 1.0])


def test_ours_is_plains_if_it_lies_among_its_runs_and_another_rate_does_not() -> None:
    found = equality(PLAIN, {"ours": [0.69, 0.60, 0.51]}, OTHER_RATE)
    assert found["ok"]
    assert found["rounding_least"] <= found["rounding"] <= found["rounding_most"] < found["control"]
    assert "equal" in told(found)
    assert "NOT" not in told(found)


@pytest.mark.parametrize("ours", [[0.69, 0.55, 0.44], [0.72, 0.63, 0.52], OTHER_RATE])
def test_a_curve_beside_them_is_not_equal(ours: list[float]) -> None:
    found = equality(PLAIN, {"ours": PLAIN[0], "ours_all_memory": ours}, OTHER_RATE)
    assert not found["ok"]
    assert "NOT EQUAL" in told(found)


def test_a_measure_that_tells_nothing_apart_finds_nothing_equal() -> None:
    """Rounding so large that another learning rate is lost in it excuses nothing."""
    wild = ([0.69, 0.60, 0.50], [0.69, 0.40, 0.20], [0.69, 0.90, 0.90])
    assert not equality(wild, {"ours": wild[0]}, OTHER_RATE)["ok"]


def test_curves_are_compared_over_the_steps_that_all_have() -> None:
    found = equality(PLAIN, {"ours": [0.69, 0.60]}, OTHER_RATE)
    assert (found["steps"], found["plain_runs"]) == (2, 3)
