"""What the tests of models/ share: a real, tiny, random Wan pipeline on disk, and clips to learn from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from models.families import get_family
from models.families.base import Family
from models.families.settings import ModelSettings, SampleSettings
from models.sampling.sampler import Sampler
from models.training.settings import TrainSettings, settings_of
from models.training.train_data import TrainData

WORDS = [
    "<pad>",
    "</s>",
    "<unk>",
    "a",
    "red",
    "green",
    "blue",
    "yellow",
    "ball",
    "square",
    "falls",
    "down",
    "moves",
    "left",
    "right",
]


def save_tiny_wan(
    folder: Path, seed: int = 0, transformer_config: dict[str, Any] | None = None, **pipeline: Any
) -> None:
    """A WanPipeline of random weights, 20,000 parameters, latents [16, 5, 4, 4] for 17 frames of 32x32."""
    torch.manual_seed(seed)
    tokens = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    tokens.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokens, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=16
    )
    mean = torch.linspace(-0.5, 0.5, 16).tolist()
    std = torch.linspace(0.5, 2.0, 16).tolist()
    config = {
        "patch_size": (1, 2, 2), "num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 16,
        "out_channels": 16, "text_dim": 32, "freq_dim": 64, "ffn_dim": 32, "num_layers": 2, "rope_max_seq_len": 32,
    }  # fmt: skip
    transformer = WanTransformer3DModel(**config | (transformer_config or {}))
    vae = AutoencoderKLWan(
        base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True],
        latents_mean=mean, latents_std=std,
    )  # fmt: skip
    text = UMT5EncoderModel(UMT5Config(vocab_size=32, d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4))
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    WanPipeline(
        tokenizer=tokenizer, text_encoder=text, vae=vae, scheduler=scheduler, transformer=transformer, **pipeline,
    ).save_pretrained(folder)  # fmt: skip


@pytest.fixture(scope="session")
def wan_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny-wan")
    save_tiny_wan(folder)
    return folder


@pytest.fixture(scope="session")
def model(wan_folder: Path) -> ModelSettings:
    return ModelSettings(device="cpu", family="wan", path=str(wan_folder))


@pytest.fixture(scope="session")
def family() -> Family:
    return get_family("wan")


@pytest.fixture(scope="session")
def sample_settings() -> SampleSettings:
    return SampleSettings(steps=3, guidance=3.0, height=32, width=32, frames=17, max_sequence_length=16)


@pytest.fixture(scope="session")
def sampler(model: ModelSettings, sample_settings: SampleSettings) -> Sampler:
    return Sampler.open(model, sample_settings)


@pytest.fixture
def plain_pipeline(wan_folder: Path) -> Any:
    """The same model as anyone would load it."""
    pipeline = WanPipeline.from_pretrained(wan_folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def transformer(family: Family, model: ModelSettings) -> nn.Module:
    return family.load_transformer(model)


@pytest.fixture
def make_transformer(family: Family, model: ModelSettings) -> Callable[[], nn.Module]:
    """Fresh copies of the same frozen network."""
    return lambda: family.load_transformer(model)


@pytest.fixture(scope="session")
def train_data() -> TrainData:
    """12 clips of 3 prompts, 4 each; even clips are accepted and chosen over the odd one that follows."""
    draw = torch.Generator().manual_seed(7)
    index = torch.arange(12)
    return TrainData(
        clip_ids=tuple(f"c{i}" for i in range(12)),
        prompt_ids=("p0", "p1", "p2"),
        latents=torch.randn(12, 16, 5, 4, 4, generator=draw),
        embeds=torch.randn(3, 16, 32, generator=draw),
        prompt_index=index // 4,
        examples=index,
        weights=torch.rand(12, generator=draw),
        accepted=index % 2 == 0,
        pairs=index.view(6, 2),
    )


@pytest.fixture
def tune() -> Callable[..., TrainSettings]:
    """Settings of a run of seconds; keyword arguments replace fields, `objective` is a label ("dpo-anchor")."""

    def make(**fields: Any) -> TrainSettings:
        small = {
            "steps": 6, "batch_size": 3, "rank": 4, "alpha": 8, "lr": 1e-3, "warmup": 2, "checkpoint_every": 2,
            "beta": 200.0, "probe": 0,
        }  # fmt: skip
        learned = settings_of(fields.pop("objective", "dpo-anchor"))
        return TrainSettings.model_validate(small | learned | fields)

    return make


def prediction_and_target(
    family: Family, transformer: nn.Module, latents: Tensor, embeds: Tensor, sigma: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Prediction and target of `latents` [B, C, T, H, W] at (sigma [B], noise [B, C, T, H, W])."""
    noisy = family.parameterization.noisy(latents, noise, sigma)
    target = family.parameterization.target(latents, noise, sigma)
    return family.predict(transformer, noisy, sigma, embeds), target
