"""The training benchmarks' own arithmetic, and the plain side run beside ours at a tiny size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import training_pair
from benchmarks.result import Result
from benchmarks.training_pair import equality
from benchmarks.training_parts import Shape, Timed, clip_flops, network
from models.families.wan import Wan

TINY = Shape("tiny", 32, 48, 9, 16)


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
    sizes = "--size tiny --height 32 --width 48 --frames 9 --text-length 16 --rank 4 --pairs 2 --steps 4"
    result = training_pair.main(
        [*sizes.split(), "--no-compile", "--device", "cpu", "--results", str(tmp_path)]
    )
    assert result.equality["ok"]
    assert result.equality["steps"] == 4
    # float32 on a CPU: far closer than what bfloat16 is allowed
    assert result.equality["ours"] < 5e-4
    assert json.loads((tmp_path / "training-pair.json").read_text())["ratio"] == result.ratio


def curves(results: Path, *more: str) -> Result:
    sizes = "--size tiny --height 32 --width 48 --frames 9 --text-length 16 --rank 4 --pairs 2 --steps 4"
    how = f"--curves --no-compile --device cpu --results {results}"
    return training_pair.main([*sizes.split(), *how.split(), *more])


def sides(results: Path) -> dict[str, int]:
    """Which sides of the curves lie there, and of how many steps."""
    files = (results / "training-pair-curves.sides").iterdir()
    return {path.name: len(json.loads(path.read_text())["losses"]) for path in files}


@pytest.mark.slow
def test_the_curves_alone(tmp_path: Path) -> None:
    result = curves(tmp_path)
    assert result.equality["ok"]
    assert (result.equality["steps"], result.name) == (4, "training-pair-curves")
    assert result.equality["ours"] < 5e-4
    assert sides(tmp_path) == {"ours.json": 4, "plain.json": 4, "plain-rounded-otherwise.json": 4}


@pytest.mark.slow
def test_curves_that_were_ended_have_ours_and_go_on_with_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine is given back while the second side is at work: what was measured is kept."""

    def ended(*_: object, **__: object) -> Timed:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(training_pair, "plain", ended)
        with pytest.raises(KeyboardInterrupt):
            curves(tmp_path)
    assert sides(tmp_path) == {"ours.json": 4}
    assert not (tmp_path / "training-pair-curves.json").exists()
    measured = json.loads((tmp_path / "training-pair-curves.sides" / "ours.json").read_text())
    with monkeypatch.context() as patched:
        patched.setattr(training_pair, "ours", ended)
        result = curves(tmp_path, "--resume")
        # of another question, or if nobody asks for it, nothing is taken up
        with pytest.raises(KeyboardInterrupt):
            curves(tmp_path)
        with pytest.raises(KeyboardInterrupt):
            curves(tmp_path, "--resume", "--rank", "2")
    assert result.details["losses"]["ours"] == measured["losses"]
    assert result.details["sides_of_an_earlier_run"] == ["ours"]
    assert result.equality["ok"]


@pytest.mark.slow
def test_curves_keep_to_their_seconds_and_are_compared_over_what_all_sides_have(tmp_path: Path) -> None:
    result = curves(tmp_path, "--seconds", "0")
    assert sides(tmp_path) == {"ours.json": 1, "plain.json": 1, "plain-rounded-otherwise.json": 1}
    assert (result.equality["steps"], result.equality["ok"]) == (1, True)
    longer = curves(tmp_path, "--resume")
    assert (longer.equality["steps"], longer.details["sides_of_an_earlier_run"]) == (4, [])


def test_curves_are_compared_over_the_steps_that_rounding_was_measured_over() -> None:
    plain = [1.0, 1.0, 1.0, 1.0]
    ours = [1.0, 1.02, 1.5, 1.5]
    found = equality(plain, ours, plain, [1.0, 1.01])
    assert found["steps"] == 2
    assert found["ours"] == pytest.approx(0.02)
    assert found["ok"]
    assert found["over all 4 steps"]["ours"] == pytest.approx(0.5)
    assert not equality(plain, ours, plain, [1.0, 1.001])["ok"]
    assert not equality(plain, ours, plain, [1.0, 1.01, 1.0])["ok"]
    # rounding that moves plain itself far away excuses nothing
    assert equality(plain, ours, plain, [1.0, 1.4, 1.4])["allowed"] == pytest.approx(0.1)
    assert not equality(plain, ours, plain, [1.0, 1.4, 1.4])["ok"]
