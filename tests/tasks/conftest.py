"""The tiny model and recipe, for this folder's tests, and a store in which a small round of it was played."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from tests.tiny_round import HELDOUT, TRAIN, Tiny, play, tiny, tiny_model, tiny_settings, write_prompts

__all__ = ["tiny", "tiny_model"]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Tiny:
    """Two prompts, a shard each; not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    write_prompts(folder / "train.jsonl", TRAIN[:2])
    write_prompts(folder / "heldout.jsonl", HELDOUT[:2])
    said = tiny_settings(tiny_model, folder)
    said["rewards"] = ["sharpness"]
    said["generate"] |= {"clips_per_prompt": 2, "batch_size": 2, "frames": 5}
    said["evaluate"] |= {"guards": [], "metric": "sharpness", "same_as_feedback": True, "clips": 2}
    said["finetune"] |= {"steps": 1, "batch_size": 2}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(said))
    played = Tiny(folder, folder / "store")
    play(played)
    return played


@pytest.fixture
def copied(finished: Tiny, tmp_path: Path) -> Tiny:
    """The same, to be changed."""
    shutil.copytree(finished.store, tmp_path / "store")
    return finished.at(tmp_path / "store")
