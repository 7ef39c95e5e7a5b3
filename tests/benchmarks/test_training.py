"""The training benchmarks' own arithmetic, and the plain side run beside ours at a tiny size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import training_pair, training_two_gpus
from benchmarks.harness import Result, forward_flops
from benchmarks.training_sides import Shape, Timed, distance, equality, told
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
RUNS = {
    "plain", "ours", "ours-all-memory", "control", "plain-again", "plain-other-kernel", "plain-a-third-time",
}  # fmt: skip


def test_tokens_of_the_published_shape() -> None:
    shape = Shape("1.3b", 480, 832, 33, 512)
    assert shape.latent == (16, 9, 60, 104)
    assert shape.tokens == 14_040


def test_a_block_costs_what_torch_counts() -> None:
    """Between one block and two lies one block's work: its linear layers, counted by torch as products."""
    counted, claimed = [], []
    for layers in (1, 2):
        shape = Shape(TINY.size, TINY.height, TINY.width, TINY.frames, TINY.text_length, layers)
        made = shape.network(torch.device("cpu"), torch.float32)
        x, embeds = torch.randn(1, *shape.latent), torch.randn(1, shape.text_length, 32)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            Wan().predict(made, x, torch.tensor([0.5]), embeds)
        products = counter.get_flop_counts()["Global"]
        counted.append(
            sum(value for op, value in products.items() if op in (torch.ops.aten.addmm, torch.ops.aten.mm))
        )
        claimed.append(forward_flops(made, shape.latent[1:], shape.text_length)["linear"])
    assert counted[1] - counted[0] == claimed[1] - claimed[0] > 0


def pair(results: Path, *more: str) -> Result:
    return training_pair.main([*SMALL, "--out", str(results), *more])


def sides(results: Path) -> dict[str, int]:
    """Which runs lie there, and of how many steps."""
    files = (results / "training-pair.sides").iterdir()
    return {path.name: len(json.loads(path.read_text())["losses"]) for path in files}


@pytest.mark.slow
def test_both_sides_learn_alike_at_a_tiny_size(tmp_path: Path) -> None:
    result = pair(tmp_path)
    found = result.equality
    assert found["ok"]
    assert (found["steps"], found["plain_runs"]) == (8, 4)
    # float32 on a CPU: far closer than what bfloat16 is allowed
    assert found["ours"] < 5e-4
    assert found["ours_all_memory"] < 5e-4
    assert json.loads((tmp_path / "training-pair.json").read_text())["ratio"] == result.ratio
    assert sides(tmp_path) == {f"{run}.json": 8 for run in RUNS}


@pytest.mark.slow
def test_a_comparison_that_was_ended_keeps_what_was_measured_and_goes_on_with_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine is given back while the second side is at work."""

    def ended(*_: object, **__: object) -> Timed:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(training_pair, "ours", ended)
        with pytest.raises(KeyboardInterrupt):
            pair(tmp_path)
    assert sides(tmp_path) == {"plain.json": 8}
    assert not (tmp_path / "training-pair.json").exists()
    measured = json.loads((tmp_path / "training-pair.sides" / "plain.json").read_text())
    result = pair(tmp_path, "--resume")
    assert result.details["runs"]["plain"]["losses"] == measured["losses"]
    assert result.details["runs_of_an_earlier_command"] == ["plain"]
    assert result.equality["ok"]
    with monkeypatch.context() as patched:
        patched.setattr(training_pair, "plain", ended)
        assert (
            pair(tmp_path, "--resume").details["losses_of_plain_again"]
            == result.details["losses_of_plain_again"]
        )
        # of another question, or if nobody asks for it, nothing is taken up
        for asked in ([], ["--resume", "--rank", "2"]):
            with pytest.raises(KeyboardInterrupt):
                pair(tmp_path, *asked)


@pytest.mark.slow
def test_runs_keep_to_their_seconds_and_are_compared_over_what_all_have(tmp_path: Path) -> None:
    result = pair(tmp_path, "--seconds", "0")
    assert sides(tmp_path) == {f"{run}.json": 1 for run in RUNS}
    # All begin with one adapter: a single step tells nobody apart.
    assert (result.equality["steps"], result.equality["ok"]) == (1, False)
    longer = pair(tmp_path, "--resume")
    assert (longer.equality["steps"], longer.details["runs_of_an_earlier_command"]) == (8, [])


@pytest.mark.slow
def test_what_a_card_allows_trains_as_recomputing_every_block_does(tmp_path: Path) -> None:
    result = pair(tmp_path, "--card-gb", "80", "--steps", "3")
    least, most = result.equality["losses"].values()
    assert least == pytest.approx(most, rel=1e-5)
    assert result.shape["card_gb"] == 80
    assert json.loads((tmp_path / "memory-training.json").read_text())["ratio"] == result.ratio


@pytest.mark.slow
def test_a_team_of_two_trains_as_one_does(tmp_path: Path) -> None:
    small = [word for word in SMALL if word not in ("--pairs", "2", "--lr", "3e-3")]
    result = training_two_gpus.main([*small, "--steps", "3", "--pairs-a-step", "4", "--out", str(tmp_path)])
    assert result is not None
    assert result.equality["ok"]
    assert list(result.details) == ["GPU 0 alone", "GPU 1 alone", "group"]


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
