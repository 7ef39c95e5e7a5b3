"""The miniature's recipe made tiny, and a folder whose store holds one round of it."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from data.store import Store
from tests.doc_blocks import ROOT
from tests.tiny_round import HELDOUT, TRAIN, write_prompts

RECIPE = "recipes/mini.yaml"


def tiny_mini(folder: Path) -> None:
    """Write recipes/mini.yaml as it is shipped, but for how much it computes, and that no server judges."""
    write_prompts(folder / "train.jsonl", TRAIN)
    write_prompts(folder / "heldout.jsonl", HELDOUT)
    recipe = yaml.safe_load((ROOT / "miniature" / RECIPE).read_text("utf-8"))
    recipe |= {"workers": 1}
    recipe["judge"] |= {"backend": "local"}
    recipe["generate"] |= {"prompts": "train.jsonl", "clips_per_prompt": 4, "batch_size": 4, "steps": 3}
    recipe["finetune"] |= {"steps": 2, "batch_size": 4, "warmup": 0}
    recipe["evaluate"] |= {"prompts": "heldout.jsonl", "clips": 4, "also": []}
    (folder / "recipes").mkdir(exist_ok=True)
    (folder / RECIPE).write_text(yaml.safe_dump(recipe, sort_keys=False), "utf-8")


@dataclass(frozen=True)
class Played:
    """A folder with recipes/mini.yaml and ./store, which holds one round of it; the working directory too."""

    folder: Path
    round_id: str
    clip_id: str
    adapter: Path

    def filled(self, text: str) -> str:
        """A page's words with what stands for a round, a clip, a model or an adapter replaced by one that is here."""
        for said, meant in (
            ("CLIP_ID [CLIP_ID...]", "CLIP_ID"), ("CLIP_ID", self.clip_id), ("ROUND", self.round_id),
            ("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", str(ROOT / "miniature/weights/wan")),
            ("store/media/ab", str(self.adapter.parent)), ("ab...safetensors", self.adapter.name),
        ):  # fmt: skip
            text = text.replace(said, meant)
        return text


@pytest.fixture(scope="session")
def played_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import vidloop

    folder = tmp_path_factory.mktemp("played")
    tiny_mini(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        summary = vidloop.play_round(RECIPE, "store")
    assert summary.policy_after is not None
    return folder


@pytest.fixture
def played(played_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Played:
    """A copy for one test, which may change it."""
    folder = tmp_path / "played"
    shutil.copytree(played_once, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder / "home"))
    os.mkdir(folder / "home")
    store = Store.open("store")
    (made, *_) = (one for one in store.manifests() if one.stage == "generate")
    (trained,) = (one for one in store.manifests() if one.stage == "finetune")
    (policy,) = store.read(trained.key, "policies")
    (summary,) = folder.glob("store/rounds/*")
    clip = store.read(made.key, "clips")[0]
    return Played(folder, summary.name, clip.clip_id, Path("store") / policy.adapter_path)
