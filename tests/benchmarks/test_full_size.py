"""A shipped recipe plays on a model of published classes that `benchmarks.full_size` wrote into a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import full_size
from data.prompts import load_prompts
from flows.config.load import load_recipe
from tests.tiny_round import Ended, vidloop

__all__ = ["vidloop"]


@pytest.mark.slow
def test_a_recipe_as_shipped_plays_on_a_model_in_a_folder(
    tmp_path: Path, vidloop: Callable[..., Ended]
) -> None:
    full_size.main(["--size", "tiny", "--device", "cpu", "--out", str(tmp_path)])
    recipe = "recipes/wan2.1-1.3b.yaml"
    chosen = load_prompts(load_recipe(recipe).generate.prompts)
    prompts = [prompt.prompt_id for prompt in chosen[:: len(chosen) // 2][:2]]
    settings = [
        f"model.path={tmp_path / 'model'}", "model.revision=null", "model.dtype=float32",
        f"clip.model={tmp_path / 'clip'}", "clip.pretrained=", f"flow.model={tmp_path / 'flow'}",
        "flow.pretrained=", "evaluate.metric=flow", "evaluate.flow_may_decide=true",
        f"generate.prompt_ids={json.dumps(prompts)}", "generate.clips_per_prompt=4",
        "generate.height=32", "generate.width=48", "generate.frames=5", "generate.steps=2",
        "generate.max_sequence_length=16", "finetune.steps=2", "finetune.warmup=2", "finetune.batch_size=4",
        "finetune.compile=false", "evaluate.clips=4", "curate.margin=0.0",
    ]  # fmt: skip
    command = ["round", "--plain", "--recipe", recipe, "--store", tmp_path / "store"]
    command += [word for one in settings for word in ("--set", one)]
    summaries = []
    for _ in range(2):
        ended = vidloop(*command)
        assert ended.code == 0, ended.err
        newest = max(
            (tmp_path / "store/rounds").glob("*/summary.json"), key=lambda path: path.stat().st_mtime_ns
        )
        summaries.append(json.loads(newest.read_text()))
    first, again = summaries
    assert first["policy_after"] is not None
    assert all(stage["shards"] for stage in first["stages"].values())
    # The same again comes from the store.
    assert all(stage["cached_shards"] == stage["shards"] for stage in again["stages"].values())
