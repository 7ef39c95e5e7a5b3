"""A real Wan pipeline of a few thousand random parameters, and a recipe that plays a whole round with it in seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from miniature.world.prompts import prompt_set

if TYPE_CHECKING:
    from tasks.context import RoundContext

ROOT = Path(__file__).resolve().parents[1]


def some(split: str, count: int) -> list[tuple[str, str]]:
    """(text, category) of prompts spread over a split of the world."""
    prompts = prompt_set(split)
    return [(one.text, one.category) for one in prompts[:: len(prompts) // count][:count]]


TRAIN = some("train", 3)
HELDOUT = some("heldout", 4)


def build_tiny_wan(folder: Path, boundary: float | None = None) -> None:
    """Save a WanPipeline with random weights, the same ones every time.

    Args:
        boundary: with two networks, as Wan2.2 A14B: the second one below this share of the timesteps.
    """
    import torch
    from diffusers import (
        AutoencoderKLWan,
        FlowMatchEulerDiscreteScheduler,
        WanPipeline,
        WanTransformer3DModel,
    )
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

    torch.manual_seed(0)
    texts = " ".join(text for text, _ in TRAIN + HELDOUT)
    words = dict.fromkeys(["<pad>", "</s>", "<unk>", *texts.split()])
    tokens = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    tokens.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokens, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=16
    )
    text = UMT5EncoderModel(UMT5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=37, num_layers=1, num_heads=4))
    vae = AutoencoderKLWan(
        base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    )
    first, second = (
        WanTransformer3DModel(
            patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=16, out_channels=16,
            text_dim=32, freq_dim=64, ffn_dim=32, num_layers=1, rope_max_seq_len=32,
        )
        for _ in range(2)
    )  # fmt: skip
    pipeline = WanPipeline(
        tokenizer=tokenizer,
        text_encoder=text,
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        transformer=first,
        transformer_2=None if boundary is None else second,
        boundary_ratio=boundary,
    )
    pipeline.save_pretrained(folder)


@dataclass(frozen=True)
class Tiny:
    """A folder with a model, prompts and a recipe that a test may change."""

    folder: Path
    store: Path

    @property
    def recipe(self) -> Path:
        return self.folder / "tiny.yaml"

    def args(self, *more: str) -> list[str]:
        """Options that every command of a test needs."""
        return ["--recipe", str(self.recipe), "--store", str(self.store), *more]

    def at(self, store: Path) -> Tiny:
        """The same recipe with another store."""
        return Tiny(self.folder, store)


def tiny_settings(model: Path, folder: Path) -> dict[str, Any]:
    """Three prompts x three clips; sharpness teaches, because noise has more or less of it and obeys no law."""
    return {
        "name": "tiny",
        "model": {"family": "wan", "path": str(model), "device": "cpu"},
        "generate": {
            "prompts": str(folder / "train.jsonl"), "clips_per_prompt": 3, "batch_size": 4, "steps": 2, "guidance": 2.0,
            "height": 32, "width": 32, "frames": 9, "max_sequence_length": 16,
        },
        "rewards": ["physics", "sharpness"],
        "feedback": "sharpness",
        "shaping": {"kind": "graded", "threshold": None},
        "curate": {"accept_fraction": 0.5, "margin": 0.0},
        "finetune": {
            "steps": 6, "batch_size": 4, "warmup": 0, "rank": 2, "alpha": 2.0,
            "lr": 1e-3, "checkpoint_every": 2,
        },
        "evaluate": {
            "prompts": str(folder / "heldout.jsonl"), "clips": 4, "also": [], "guards": ["motion", "diversity"],
        },
    }  # fmt: skip


def write_prompts(path: Path, prompts: list[tuple[str, str]]) -> None:
    import json

    lines = [json.dumps({"text": text, "category": category}) for text, category in prompts]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "wan"
    build_tiny_wan(folder)
    return folder


@pytest.fixture
def tiny(tmp_path: Path, tiny_model: Path) -> Tiny:
    write_prompts(tmp_path / "train.jsonl", TRAIN)
    write_prompts(tmp_path / "heldout.jsonl", HELDOUT)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_settings(tiny_model, tmp_path), sort_keys=False))
    return Tiny(tmp_path, tmp_path / "store")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def vidloop() -> Callable[..., Ended]:
    """Run the command line in a process of its own."""

    def run(*args: str | Path, cwd: Path | None = None, limit_s: float = 600, **environment: str) -> Ended:
        done = subprocess.run(
            [sys.executable, "-m", "flows", *map(str, args)],
            cwd=cwd or ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "random", **environment},
            capture_output=True,
            text=True,
            timeout=limit_s,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


def committed(store: Path) -> dict[str, bytes]:
    """Every file that holds committed work."""
    found = {}
    for folder in ("manifests", "parts", "media"):
        for path in sorted((store / folder).rglob("*")):
            if path.is_file():
                found[path.relative_to(store).as_posix()] = path.read_bytes()
    return found


def summaries(store: Path) -> list[dict[str, Any]]:
    """Every round's summary, oldest first."""
    import json

    paths = sorted((store / "rounds").glob("*/summary.json"), key=lambda path: path.stat().st_mtime_ns)
    return [json.loads(path.read_text()) for path in paths]


def empty_adapter(base: str) -> bytes:
    """A file of the size that the tiny recipe trains, which changes nothing: it has no tensors."""
    from models.families.wan import Wan
    from models.lora import LoraFile, LoraSpec, write

    return write(LoraFile(LoraSpec(2, 2.0, Wan.lora_targets), {}, base))


def begun(tiny: Tiny, *overrides: str) -> RoundContext:
    """A round that has begun."""
    from data.store import Store
    from flows.config.load import load_recipe
    from flows.rounds.run_round import begin

    return begin(load_recipe(str(tiny.recipe), overrides), Store.open(tiny.store, create=True))


def play(tiny: Tiny, *overrides: str) -> dict[str, Any]:
    """A plain round in this process; what its summary.json says."""
    from flows.rounds.plain import plain_round

    return plain_round(begun(tiny, *overrides)).model_dump()


def cached(summary: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """(cached, all) shards by stage."""
    return {name: (stage["cached_shards"], stage["shards"]) for name, stage in summary["stages"].items()}
