import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import WanPipeline
from torch import nn

from data.errors import UserError
from models.families import get_family
from models.families.base import Family
from models.families.settings import ModelSettings, SampleSettings
from models.sampling.sampler import Sampler
from tests.models.conftest import prediction_and_target, save_tiny_wan

PROMPTS = ["a red ball falls down", "a blue square moves left"]


def plain_frames(pipeline: Any, settings: SampleSettings, seeds: list[int], output_type: str) -> Any:
    return pipeline(
        PROMPTS,
        negative_prompt=[settings.negative_prompt] * len(PROMPTS),
        height=settings.height,
        width=settings.width,
        num_frames=settings.frames,
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance,
        max_sequence_length=settings.max_sequence_length,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        output_type=output_type,
    ).frames


@pytest.mark.parametrize("guidance", [3.0, 1.0])
@pytest.mark.parametrize("negative", ["", "a square"])
def test_sampling_equals_the_plain_pipeline_bit_for_bit(
    model: ModelSettings, sample_settings: SampleSettings, plain_pipeline: Any, guidance: float, negative: str
) -> None:
    settings = sample_settings.changed(guidance=guidance, negative_prompt=negative)
    ours = Sampler.open(model, settings).generate(PROMPTS, [11, 12])
    latents = plain_frames(plain_pipeline, settings, [11, 12], "latent")
    assert torch.equal(ours.latents, latents)
    frames = plain_frames(plain_pipeline, settings, [11, 12], "np")
    assert np.array_equal(ours.frames, (frames * 255).round().astype(np.uint8))
    assert ours.frames.std() > 1


def test_flow_shift_reaches_the_scheduler(
    model: ModelSettings, sample_settings: SampleSettings, plain_pipeline: Any
) -> None:
    settings = sample_settings.changed(flow_shift=7.0)
    shifted = Sampler.open(model, settings).generate(PROMPTS, [1, 2])
    plain_pipeline.scheduler = type(plain_pipeline.scheduler).from_config(
        plain_pipeline.scheduler.config, shift=7.0
    )
    assert torch.equal(shifted.latents, plain_frames(plain_pipeline, settings, [1, 2], "latent"))


def test_latent_normalisation_is_the_pipelines_own_not_inverted(
    family: Family, plain_pipeline: Any, sample_settings: SampleSettings
) -> None:
    latents = torch.randn(1, 16, 5, 4, 4, generator=torch.Generator().manual_seed(0))
    vae = plain_pipeline.vae
    std = torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)
    mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1)
    with torch.no_grad():
        expected = vae.decode(latents * std + mean).sample
        inverted = vae.decode((latents - mean) / std).sample
    pixels = torch.from_numpy(family.decode(plain_pipeline, latents)).permute(0, 4, 1, 2, 3) / 127.5 - 1
    assert (pixels - expected).abs().max() < 1 / 127
    assert (pixels - inverted).abs().max() > 10 / 127


def test_training_uses_the_same_padded_embeddings_as_sampling(sampler: Sampler, plain_pipeline: Any) -> None:
    made = sampler.generate(PROMPTS, [1, 2])
    with torch.no_grad():
        used, _ = plain_pipeline.encode_prompt(
            PROMPTS, do_classifier_free_guidance=False, max_sequence_length=16
        )
    assert torch.equal(made.embeds, used)
    assert bool((made.embeds[0, 6:] == 0).all()), "six tokens, then zeros that the network does see"
    assert bool((made.embeds[0, :6] != 0).any())


def test_prediction_is_the_networks_at_the_samplers_timestep(family: Family, transformer: nn.Module) -> None:
    draw = torch.Generator().manual_seed(3)
    x0, noise = (torch.randn(2, 16, 5, 4, 4, generator=draw) for _ in range(2))
    embeds = torch.randn(2, 16, 32, generator=draw)
    sigma = torch.tensor([0.25, 0.9])
    prediction, target = prediction_and_target(family, transformer, x0, embeds, sigma, noise)
    at = sigma.view(-1, 1, 1, 1, 1)
    expected = transformer(
        hidden_states=(1 - at) * x0 + at * noise, timestep=sigma * 1000, encoder_hidden_states=embeds
    ).sample
    assert torch.allclose(prediction, expected, atol=1e-5)
    assert torch.equal(target, noise - x0)


def test_transformer_loads_without_vae_and_text_encoder(
    wan_folder: Path, tmp_path: Path, family: Family
) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(wan_folder, alone, ignore=shutil.ignore_patterns("vae", "text_encoder", "tokenizer"))
    network = family.load_transformer(ModelSettings(device="cpu", family="wan", path=str(alone)))
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    with pytest.raises(UserError, match="has no vae"):
        family.load_pipeline(ModelSettings(device="cpu", family="wan", path=str(alone)))


def test_dtype_is_that_of_the_settings(model: ModelSettings, family: Family) -> None:
    network: Any = family.load_transformer(model.changed(dtype="bfloat16"))
    assert network.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"frames": 16}, "frames is 16"),
        ({"height": 40}, "height is 40"),
    ],
)
def test_geometry_off_the_grid_is_refused_not_rounded(
    sampler: Sampler, sample_settings: SampleSettings, family: Family, change: dict[str, int], told: str
) -> None:
    settings = sample_settings.changed(**change)
    embeds = sampler.encode(PROMPTS)
    with pytest.raises(UserError, match=told):
        family.sample_latents(sampler.pipeline, embeds, embeds, [1, 2], settings)


def test_missing_and_damaged_models_are_named(wan_folder: Path, tmp_path: Path, family: Family) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match=r"no model_index\.json"):
        family.load_pipeline(ModelSettings(device="cpu", family="wan", path=str(empty)))
    broken = tmp_path / "broken"
    shutil.copytree(wan_folder, broken)
    weights = broken / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UserError, match=r"transformer/.* was cut off or changed"):
        family.load_transformer(ModelSettings(device="cpu", family="wan", path=str(broken)))


def refused(folder: Path, told: str) -> None:
    for load in (get_family("wan").load_pipeline, get_family("wan").load_transformer):
        with pytest.raises(UserError, match=told):
            load(ModelSettings(device="cpu", family="wan", path=str(folder)))


def test_a_model_of_two_experts_is_told_its_family(tmp_path: Path, plain_pipeline: Any) -> None:
    parts = {**plain_pipeline.components, "transformer_2": plain_pipeline.transformer}
    WanPipeline(**parts).save_pretrained(tmp_path / "experts")
    refused(tmp_path / "experts", r"two experts .*say model\.family: wan-experts")
    parts["transformer_2"] = None
    WanPipeline(**parts, boundary_ratio=0.875).save_pretrained(tmp_path / "boundary")
    refused(tmp_path / "boundary", r"two experts .*say model\.family: wan-experts")


def test_an_image_to_video_model_is_refused(wan_folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other-class"
    shutil.copytree(wan_folder, other)
    index = other / "model_index.json"
    index.write_text(index.read_text().replace('"WanPipeline"', '"WanImageToVideoPipeline"'))
    refused(other, "made for WanImageToVideoPipeline")
    # as with Wan2.2's image-to-video network in a text-to-video index: condition and mask as more channels
    save_tiny_wan(tmp_path / "channels", transformer_config={"in_channels": 36})
    refused(tmp_path / "channels", "takes 36 channels and gives 16")


def test_a_ti2v_model_may_be_filed_under_either_pipeline(tmp_path: Path) -> None:
    save_tiny_wan(tmp_path, expand_timesteps=True)
    index = tmp_path / "model_index.json"
    index.write_text(index.read_text().replace('"WanPipeline"', '"WanImageToVideoPipeline"'))
    settings = ModelSettings(device="cpu", family="wan", path=str(tmp_path))
    assert get_family("wan").load_pipeline(settings).config.expand_timesteps
    assert not get_family("wan").load_transformer(settings).training


def test_a_timestep_a_token_needs_the_patches_that_the_pipeline_counts_with(tmp_path: Path) -> None:
    save_tiny_wan(tmp_path, transformer_config={"patch_size": (1, 1, 2)}, expand_timesteps=True)
    refused(tmp_path, "expand_timesteps")


def test_unknown_family_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'wan'"):
        get_family("wam")
