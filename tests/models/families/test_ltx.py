"""What only LTX-Video has: a frame rate, a mask that travels in the embeddings, and releases it must refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import LTXPipeline

from data.errors import UserError
from models.families import get_family
from models.families.settings import ModelSettings, SampleSettings
from models.sampling.sampler import Sampler
from tests.models.families.tiny import LENGTH, save_tiny_ltx

SETTINGS = SampleSettings(steps=2, guidance=1.0, height=64, width=96, frames=9, max_sequence_length=LENGTH)
PROMPTS = ["a red ball falls down", "a blue square"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ltx")
    save_tiny_ltx(path)
    return path


def test_the_frame_rate_reaches_sampling_and_training(folder: Path) -> None:
    made, predicted = [], []
    for rate in (None, 25, 12):
        model = ModelSettings(device="cpu", family="ltx", path=str(folder), frame_rate=rate)
        sampler = Sampler.open(model, SETTINGS)
        embeds = sampler.encode(PROMPTS)
        latents = sampler.sample(embeds, [1, 2])
        made.append(latents)
        family = get_family("ltx")
        with torch.no_grad():
            predicted.append(
                family.predict(family.load_transformer(model), made[0], torch.tensor([0.5, 0.5]), embeds)
            )
    for seen in (made, predicted):
        assert torch.equal(seen[0], seen[1]), "25 is what the pipeline itself takes"
        assert not torch.allclose(seen[1], seen[2], atol=1e-4)


def test_padding_is_zero_and_changes_no_prediction(folder: Path) -> None:
    sampler = Sampler.open(ModelSettings(device="cpu", family="ltx", path=str(folder)), SETTINGS)
    embeds = sampler.encode(PROMPTS)
    tokens = (embeds != 0).any(-1).sum(-1)
    assert tokens.tolist() == [6, 4], "words and the end of the text"
    plain = LTXPipeline.from_pretrained(folder)
    with torch.no_grad():
        whole, mask, _, _ = plain.encode_prompt(
            PROMPTS, do_classifier_free_guidance=False, max_sequence_length=LENGTH
        )
    assert torch.equal(embeds, whole * mask.unsqueeze(-1))
    assert bool((whole[1, 4:] != 0).any()), "which the pipeline masks, and so may we not lose the mask"


def test_a_vae_that_asks_for_a_timestep_decodes_as_the_pipeline_does(tmp_path: Path) -> None:
    save_tiny_ltx(tmp_path, timestep_conditioning=True)
    ours = Sampler.open(ModelSettings(device="cpu", family="ltx", path=str(tmp_path)), SETTINGS).generate(
        PROMPTS, [1, 2]
    )
    plain = LTXPipeline.from_pretrained(tmp_path)
    plain.set_progress_bar_config(disable=True)
    frames = plain(
        PROMPTS, height=64, width=96, num_frames=9, num_inference_steps=2, guidance_scale=1.0,
        max_sequence_length=LENGTH, generator=[torch.Generator().manual_seed(s) for s in (1, 2)], output_type="np",
    ).frames  # fmt: skip
    assert np.array_equal(ours.frames, (frames * 255).round().astype(np.uint8))


@pytest.mark.parametrize(
    ("config", "change", "told"),
    [
        ("model_index.json", {"_class_name": "LTXConditionPipeline"}, "made for LTXConditionPipeline"),
        ("transformer/config.json", {"patch_size": 2}, "size 1 only"),
        ("vae/config.json", {"decoder_inject_noise": [True, False, False, False, False]}, "adds noise"),
    ],
)
def test_relatives_are_refused_because_they_would_be_silently_wrong(
    tmp_path: Path, config: str, change: dict[str, Any], told: str
) -> None:
    save_tiny_ltx(tmp_path)
    path = tmp_path / config
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **change}), "utf-8")
    family = get_family("ltx")
    for load in (family.load_pipeline, family.load_transformer):
        with pytest.raises(UserError, match=told):
            load(ModelSettings(device="cpu", family="ltx", path=str(tmp_path)))


def test_a_constant_flow_shift_is_refused_where_the_schedule_shifts_by_size(folder: Path) -> None:
    with pytest.raises(UserError, match="no constant shift"):
        Sampler.open(
            ModelSettings(device="cpu", family="ltx", path=str(folder)), SETTINGS.changed(flow_shift=3.0)
        )


def test_a_single_step_is_refused_because_its_schedule_would_be_nan(folder: Path) -> None:
    with pytest.raises(UserError, match="steps is 1; this model's schedule needs at least 2"):
        Sampler.open(ModelSettings(device="cpu", family="ltx", path=str(folder)), SETTINGS.changed(steps=1))
