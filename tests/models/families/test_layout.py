"""Weights as they come: in shards, in one file, from a hub's cache; and what is missing is said before any work."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanPipeline
from safetensors.torch import load_file, save_file

from data.errors import UserError
from models.families import get_family
from models.families.settings import ModelSettings, SampleSettings
from models.policy import base_id
from models.sampling.sampler import Sampler

PROMPTS = ["a red ball falls down", "a blue square moves left"]
ROOT = Path(__file__).parents[3]
# diffusers' names of a Wan network's layers, and those of the weights as Wan's authors publish them
ORIGINAL = {
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "attn1": "self_attn", "attn2": "cross_attn", ".to_out.0.": ".o.", ".to_q.": ".q.", ".to_k.": ".k.",
    ".to_v.": ".v.", "ffn.net.0.proj": "ffn.0", "ffn.net.2": "ffn.2", "proj_out": "head.head", ".norm2.": ".norm3.",
    "scale_shift_table": "modulation",
}  # fmt: skip


@pytest.fixture(scope="module")
def sharded(wan_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    WanPipeline.from_pretrained(wan_folder).save_pretrained(folder, max_shard_size="40KB")
    for part in ("transformer", "text_encoder"):
        assert len(list((folder / part).glob("*-of-*.safetensors"))) > 1, part
    return folder


def latents(folder: Path, settings: SampleSettings) -> Any:
    return (
        Sampler.open(ModelSettings(device="cpu", family="wan", path=str(folder)), settings)
        .generate(PROMPTS, [1, 2])
        .latents
    )


def _original(name: str) -> str:
    if name == "scale_shift_table":
        return "head.modulation"
    for ours, theirs in ORIGINAL.items():
        name = name.replace(ours, theirs)
    return name


def test_sharded_weights_give_the_same_clips(
    sharded: Path, wan_folder: Path, sample_settings: SampleSettings
) -> None:
    assert torch.equal(latents(sharded, sample_settings), latents(wan_folder, sample_settings))
    alone: Any = get_family("wan").load_transformer(
        ModelSettings(device="cpu", family="wan", path=str(sharded))
    )
    whole: Any = get_family("wan").load_transformer(
        ModelSettings(device="cpu", family="wan", path=str(wan_folder))
    )
    for (name, mine), theirs in zip(alone.named_parameters(), whole.parameters(), strict=True):
        assert torch.equal(mine, theirs), name
    assert base_id(sharded) != base_id(wan_folder), "an id is of the files"


def test_a_missing_part_or_shard_is_named_before_any_weight_is_read(sharded: Path, tmp_path: Path) -> None:
    for part in ("text_encoder", "vae", "tokenizer"):
        broken = tmp_path / part
        shutil.copytree(sharded, broken, ignore=shutil.ignore_patterns(part))
        with pytest.raises(UserError, match=f"has no {part}, which its model_index.json names"):
            base_id(broken)
    broken = tmp_path / "shards"
    shutil.copytree(sharded, broken)
    first, second = sorted((broken / "transformer").glob("*-of-*.safetensors"))[:2]
    first.unlink()
    with pytest.raises(UserError, match=f"transformer lacks {first.name}, which .*index.json names"):
        base_id(broken)
    second.unlink()
    with pytest.raises(UserError, match="and 1 more shards"):
        base_id(broken)
    with pytest.raises(UserError, match="and 1 more shards"):
        get_family("wan").load_transformer(ModelSettings(device="cpu", family="wan", path=str(broken)))


@pytest.mark.parametrize(("text", "told"), [("{", "is not JSON"), ("[]", "no JSON object")])
def test_a_damaged_index_is_named(sharded: Path, tmp_path: Path, text: str, told: str) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(sharded, broken)
    (broken / "model_index.json").write_text(text)
    with pytest.raises(UserError, match=told):
        base_id(broken)
    shutil.copy(sharded / "model_index.json", broken)
    index = next((broken / "transformer").glob("*.index.json"))
    index.write_text("{}")
    with pytest.raises(UserError, match=f"{index.name} has no weight_map"):
        base_id(broken)


def test_single_file_weights_are_converted_once_as_the_docs_say(
    wan_folder: Path, tmp_path: Path, sample_settings: SampleSettings
) -> None:
    weights = load_file(wan_folder / "transformer" / "diffusion_pytorch_model.safetensors")
    original = {_original(name): value for name, value in weights.items()}
    assert "blocks.0.self_attn.q.weight" in original
    single = tmp_path / "mine.safetensors"
    save_file(original, single)
    with pytest.raises(UserError, match=r"is a file.*from_single_file"):
        base_id(single)
    page = (ROOT / "docs" / "run-your-own-model.md").read_text()
    (lines,) = (code for code in re.findall(r"```python\n(.*?)```", page, re.S) if "from_single_file" in code)
    # scrambled, so that weights which were not taken from the file would show
    donor = tmp_path / "donor"
    pipeline = WanPipeline.from_pretrained(wan_folder)
    torch.nn.init.normal_(pipeline.transformer.proj_out.weight)
    pipeline.save_pretrained(donor)
    for said, here in (
        ("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", donor), ("mine.safetensors", single), ('"my-wan"', f'"{tmp_path}/my-wan"'),
        ("torch.bfloat16", "torch.float32"),
    ):  # fmt: skip
        assert str(said) in lines
        lines = lines.replace(str(said), str(here))
    exec(lines, {})  # the page's own lines, from this repository
    assert torch.equal(latents(tmp_path / "my-wan", sample_settings), latents(wan_folder, sample_settings))


@pytest.mark.slow  # a process of its own: the hub's library reads its settings once
def test_a_hub_id_comes_from_the_cache_without_a_network_and_a_wrong_revision_is_told(
    wan_folder: Path, tmp_path: Path
) -> None:
    here, other = "a" * 40, "b" * 40
    cached = tmp_path / "hub" / "models--own--tiny"
    shutil.copytree(wan_folder, cached / "snapshots" / here)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(here)
    script = f"""
import json, sys
from data.errors import UserError
from models.families import get_family
from models.families.settings import ModelSettings
family, told = get_family("wan"), []
family.load_pipeline(ModelSettings(device="cpu", family="wan", path="own/tiny", revision="{here}"))
family.load_transformer(ModelSettings(device="cpu", family="wan", path="own/tiny", revision="{here}"))
for load in (family.load_pipeline, family.load_transformer):
    try:
        load(ModelSettings(device="cpu", family="wan", path="own/tiny", revision="{other}"))
    except UserError as failure:
        told.append(str(failure))
print(json.dumps(told))
"""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "hub")}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    told = json.loads(done.stdout.splitlines()[-1])
    assert len(told) == 2
    for message in told:
        assert f"of own/tiny at revision {other}" in message
        assert "model.revision" in message
