"""How every network computed is said when it begins, and kept in the round's summary."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.reporting import console
from tests.miniature_rewards import CLIP, FLOW
from tests.rewards.judge.conftest import write_rubric  # noqa: F401  (a fixture)
from tests.tiny_round import Tiny, play
from tests.tiny_vlm import tiny_vlm  # noqa: F401  (a fixture)

POLICY = "WanTransformer3DModel on cpu in float32, attention: PyTorch's for CPUs, not compiled"


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(console, "_chosen", [console.ProgressReporter(lines.append)])
    return lines


def judged(tiny: Tiny, vlm: Path, rubric: str) -> Tiny:
    recipe: dict[str, Any] = yaml.safe_load(tiny.recipe.read_text())
    recipe["rewards"] = {"clip": CLIP, "flow": FLOW, "judge": {}, "sharpness": {}, "physics": {}}
    recipe["judge"] = {"backend": "local", "model": str(vlm), "rubric": rubric}
    recipe["score"] = {"rewards": ["clip", "flow", "judge", "sharpness"]}
    recipe["finetune"] |= {"steps": 1, "fixed_noise_samples": 2, "reference_errors": "stored"}
    tiny.recipe.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return tiny


def test_the_summary_and_the_log_say_how_each_network_computed(
    tiny: Tiny, tiny_vlm: Path, write_rubric: Callable[..., str], said: list[str]
) -> None:
    cache = "generate.step_cache={interval: 2, warmup: 2, order: 1}"
    stages = play(judged(tiny, tiny_vlm, write_rubric()), cache, "generate.steps=4")["stages"]
    assert stages["generate"]["networks"] == {
        "policy": f"{POLICY}, step cache fast: taylorseer interval 2 warmup 2 order 1, not offloaded",
        "text encoder": "UMT5EncoderModel on cpu in float32, attention: sdpa, not compiled, not offloaded",
        "vae": "AutoencoderKLWan on cpu in float32, attention: as PyTorch chooses, not compiled",
    }
    assert stages["score"]["networks"] == {
        "reward clip": "CLIP on cpu in float32, attention: as PyTorch chooses, not compiled",
        "reward flow": "RAFT on cpu in float32, not compiled",
        "reward judge": "Qwen2VLForConditionalGeneration on cpu in float32, attention: sdpa, not compiled",
    }
    assert stages["finetune"]["networks"] == {"policy": POLICY, "reference": POLICY}
    assert "networks" not in stages["curate"]
    assert stages["evaluate"]["networks"] == stages["generate"]["networks"]
    once = [line for line in said if "reward clip: " in line]
    assert len(once) == 1
    assert once[0].strip() == f"reward clip: {stages['score']['networks']['reward clip']}"
    # What the store holds runs no network.
    again = play(tiny, cache, "generate.steps=4")["stages"]
    assert not any("networks" in stage for stage in again.values())


def test_a_compiled_and_quantised_network_says_so(tiny: Tiny) -> None:
    import torch

    from models.families import get_family
    from models.families.settings import ModelSettings
    from models.training.networks import training_line
    from models.training.settings import TrainSettings

    path = yaml.safe_load(tiny.recipe.read_text())["model"]["path"]
    model = ModelSettings(family="wan", path=path, dtype="bfloat16", device="cpu", quantise="fp8-storage")
    family = get_family("wan")
    line = training_line(family, model, TrainSettings(compile=True, processes=2))
    assert "in bfloat16 with weights as fp8-storage" in line
    assert line.endswith("blocks compiled, 2 processes")

    class Blocks(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = torch.nn.ModuleList(torch.nn.Linear(1, 1) for _ in range(3))

    assert "3 blocks compiled" in training_line(family, model, TrainSettings(compile=True), Blocks())
