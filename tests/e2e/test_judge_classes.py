"""Qwen2.5-VL, Qwen3-VL and InternVL by a real vLLM server: the same prompt as in process, and the same P(yes).

Qwen3-VL's P(yes) alone differs between the libraries (seen with these random weights: up to 0.1), for a reason not found:
its prompts are equal token for token in number, and so is everything that we send.

Needs an environment with vLLM: .venv-judge (`make judge`), or the folder that VIDLOOP_JUDGE_VENV names.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from rewards import build_reward
from rewards.base import LoadedClip
from tests.rewards.judge.conftest import RUBRIC
from tests.tiny_round import ROOT
from tests.tiny_vlm import tiny_real  # noqa: F401  (a fixture)

pytestmark = pytest.mark.slow

ENVIRONMENT = Path(os.environ.get("VIDLOOP_JUDGE_VENV", ROOT / ".venv-judge")).absolute()
if not (ENVIRONMENT / "bin" / "python").exists():
    pytest.skip(f"no vLLM at {ENVIRONMENT}: `make judge`, or set VIDLOOP_JUDGE_VENV", allow_module_level=True)


def test_both_backends_are_one_judge(tiny_real: Path, tmp_path: Path) -> None:
    """Clips of several lengths and frame rates; nobody's prompt has a token more on the server.

    All are short enough for Qwen2.5-VL's positions in time to stay below its positions in space: beyond, the two
    libraries number the text after a video differently (docs/judge.md).
    """
    (tmp_path / "rubric.yaml").write_text(yaml.safe_dump(RUBRIC))
    rng = np.random.default_rng(0)
    clips = [
        LoadedClip(
            f"c{i}", "a red ball falls", rng.integers(0, 256, (frames, 32, 32, 3), dtype=np.uint8), fps, "falling down"
        )
        for i, (frames, fps) in enumerate([(9, 8.0), (17, 16.0), (9, 16.0), (33, 32.0)] * 4)
    ]  # fmt: skip
    own = {"model": str(tiny_real), "rubric": str(tmp_path / "rubric.yaml"), "environment": str(ENVIRONMENT)}
    local: Any = build_reward("judge", own | {"backend": "local", "device": "cpu"})
    served: Any = build_reward("judge", own | {"backend": "vllm"})
    wanted = {"judge/task": clips, "judge/physics": clips}
    try:
        ours, theirs = local.score_parts(wanted).judgements, served.score_parts(wanted).judgements
    finally:
        served.close()
    differences = []
    for part in wanted:
        for clip in clips:
            one, other = ours[part][clip.clip_id], theirs[part][clip.clip_id]
            assert other.value is not None, other.error
            assert one.detail["prompt_tokens"] == other.detail["prompt_tokens"]
            differences.append(abs(one.value - other.value))
    spread = np.ptp([one.value for one in ours["judge/task"].values()])
    print(f"{tiny_real.name}: largest difference in P(yes) {max(differences):.2e}; spread {spread:.3f}")
    if tiny_real.name != "qwen3_vl":
        assert max(differences) <= 1e-4
    assert spread > 0.01, "answers that hardly differ would show nothing"
