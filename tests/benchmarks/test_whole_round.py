"""The benchmark of a whole round, whole, on a model of no size: the same code as on a GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.whole_round import main
from tasks.stages import STAGES

TINY = [
    "--size", "tiny", "--prompts", "2", "--set", "generate.height=32", "--set", "generate.width=48",
    "--set", "generate.frames=5", "--set", "generate.steps=2", "--set", "generate.max_sequence_length=16",
    "--set", "model.dtype=float32", "--set", "finetune.steps=2", "--set", "finetune.compile=false",
    "--set", "evaluate.clips=4",
]  # fmt: skip


@pytest.mark.slow
def test_a_recipe_as_shipped_plays_on_a_model_in_a_folder(tmp_path: Path) -> None:
    main([*TINY, "--out", str(tmp_path)])
    found = json.loads((tmp_path / "whole-round.json").read_text())
    assert found["equality"]["same"]
    assert found["details"]["learned"]
    assert list(found["details"]["stages"]) == list(STAGES)
    assert all(stage["units"] and stage["seconds"] >= 0 for stage in found["details"]["stages"].values())
