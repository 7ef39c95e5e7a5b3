"""The benchmarks of generation and scoring, whole, on models of no size: the same code as on a GPU."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import generation, generation_fast, one_policy, quality, scoring
from benchmarks.full_size import SIZES, build_transformer, size_of
from benchmarks.harness import Clock, forward_flops, relative
from data.errors import UserError

TINY = [
    "--size", "tiny", "--device", "cpu", "--dtype", "float32", "--height", "32", "--width", "48",
    "--frames", "5", "--steps", "6", "--tokens", "16", "--batch-size", "2", "--clips", "4", "--plain-clips", "2",
]  # fmt: skip


def run(
    monkeypatch: pytest.MonkeyPatch, module: Any, folder: Path, *options: str, name: str
) -> dict[str, Any]:
    monkeypatch.setattr(sys, "argv", ["benchmark", *options, "--out", str(folder)])
    module.main()
    found: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return found


def test_flops_are_those_that_torch_counts() -> None:
    network: Any = build_transformer("wan", "tiny", "cpu", torch.float32)
    x, text = torch.randn(1, 16, 2, 8, 12), torch.randn(1, 16, 32)
    # the fused attention of a CPU is not counted
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        for block in network.blocks:
            width = network.config.num_attention_heads * network.config.attention_head_dim
            block(torch.randn(1, 48, width), torch.randn(1, 16, width), torch.randn(1, 6, width), None)
    counted = counter.get_total_flops()
    assert sum(forward_flops(network, x.shape[2:], text.shape[1]).values()) == counted


def test_weights_are_in_the_precision_that_diffusers_loads_them_in() -> None:
    network: Any = build_transformer("wan", "tiny", "cpu", torch.bfloat16)
    kept = {name for name, weight in network.named_parameters() if weight.dtype == torch.float32}
    assert network.dtype == torch.bfloat16
    assert "scale_shift_table" in kept
    assert "blocks.0.norm2.weight" in kept
    assert not any("attn" in name or "ffn" in name for name in kept)


def test_the_same_seed_gives_the_same_weights() -> None:
    first, second = (build_transformer("wan", "tiny", "cpu", torch.float32, seed=3) for _ in range(2))
    for mine, theirs in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_an_unknown_size_names_those_there_are() -> None:
    with pytest.raises(UserError, match="there is no wan-13b here"):
        size_of("wan", "13b")
    assert all(size_of(*name.split("-", 1)) is size for name, size in SIZES.items())


def test_a_relative_distance_is_one_where_all_is_missing() -> None:
    assert relative(torch.zeros(3), torch.ones(3)) == 1.0
    assert relative(torch.ones(3), torch.ones(3)) == 0.0


def test_a_clock_counts_down() -> None:
    assert Clock().left == float("inf")
    assert Clock(10.0).left < 10.0


@pytest.mark.slow
def test_generation_measures_both_sides_and_how_far_they_lie_apart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = run(monkeypatch, generation, tmp_path, *TINY, "--deviation-steps", "2", name="generation")
    assert found["ratio"] == pytest.approx(found["ours"] / found["plain"])
    assert found["shape"]["clips"] == 4
    assert found["shape"]["plain clips"] == 2
    equality = found["equality"]
    assert equality["within tolerance"]
    assert equality["final latent, ours against plain, relative, largest"] < 1e-4
    assert "after 2 steps" in "".join(equality)


@pytest.mark.slow
def test_too_little_time_gives_fewer_clips_and_still_a_result(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = run(
        monkeypatch, generation, tmp_path, *TINY, "--deviation-steps", "0", "--max-seconds", "0",
        name="generation",
    )  # fmt: skip
    assert found["shape"]["clips"] == 2
    assert found["shape"]["plain clips"] == 1


@pytest.mark.slow
def test_the_fast_mode_is_measured_with_the_oracle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = run(
        monkeypatch, generation_fast, tmp_path, *TINY, "--quality-clips", "4", "--quality-steps", "6",
        "--quality-batch", "4", name="generation-fast",
    )  # fmt: skip
    modes = found["equality"]["oracle"]
    assert [mode["network asked at"] for mode in modes.values()] == [6, 6, 5, 5]
    assert modes["reference: float32, eager"]["difference"] == 0.0
    assert found["details"]["network asked at steps"] == "5 of 6"


@pytest.mark.slow
def test_quality_of_the_exact_mode_is_that_of_the_reference(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options = ["--clips", "4", "--steps", "6", "--batch", "4", "--device", "cpu"]
    found = run(monkeypatch, quality, tmp_path, *options, name="generation-quality")
    # on a CPU both are float32 and eager: the very same clips
    assert found["plain"] == found["ours"]
    assert found["equality"]["exact: float32"]["zero lies in the interval"]


@pytest.mark.slow
def test_quality_of_quantised_weights_stands_beside_the_reference(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options = ["--quantised", "--device", "cpu", "--clips", "4", "--steps", "6", "--batch", "4"]
    found = run(monkeypatch, quality, tmp_path, *options, name="quantised-quality")
    assert list(found["equality"]) == [
        "reference: float32, eager", "exact: float32", "fp8-storage: float32, eager",
    ]  # fmt: skip
    assert found["ours"] == found["equality"]["fp8-storage: float32, eager"]["oracle success"]
    assert found["plain"] == found["equality"]["reference: float32, eager"]["oracle success"]


@pytest.mark.slow
def test_scoring_gives_the_same_scores_both_ways(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    options = ["--mini", "--height", "64", "--width", "64", "--frames", "9", "--clips", "4", "--shard", "2"]
    found = run(
        monkeypatch, scoring, tmp_path, *options, "--plain-clips", "2", "--updates", "2", "--device", "cpu",
        name="scoring",
    )  # fmt: skip
    assert found["equality"]["within tolerance"]
    assert found["equality"]["scores that failed"] == 0
    assert found["shape"]["clips"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("whole", [False, True])
def test_two_workers_make_the_clips_of_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, whole: bool
) -> None:
    options = ["--two-gpus", "--whole"] if whole else ["--two-gpus"]
    name = "generation-two-gpus" + whole * "-whole"
    found = run(monkeypatch, generation, tmp_path, *TINY, *options, name=name)
    assert found["equality"] == {"clips of the same bytes": 4, "clips": 4, "same": True}
    alone = found["details"]["seconds"]["each alone, all" if whole else "each alone, its part"]
    assert found["plain"] == pytest.approx(3600 * 4 / (sum(alone) / len(alone) if whole else sum(alone)))


@pytest.mark.slow
def test_what_is_left_of_an_adapter_is_told_for_every_way_of_playing_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shape = ("--size", "tiny", "--height", "32", "--width", "32", "--frames", "17", "--device", "cpu")
    found = run(monkeypatch, one_policy, tmp_path, *shape, "--draws", "16", name="one-policy")
    (shares,) = found["equality"].values()
    assert set(shares) == {f"B of rms {size:g}" for size in one_policy.SIZES}
    largest, scatter = shares["B of rms 0.002"]["ours"]
    assert abs(largest - 1) < 0.02 + 4 * scatter
    assert set(found["details"]["time, merged = 1"]) == {"merged", "peft", "ours"}
