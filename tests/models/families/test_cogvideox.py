"""What only CogVideoX has: its grid of timesteps, its text length, and relatives that it must refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from data.errors import UserError
from models.families import get_family
from models.families.cogvideox import nearest_timestep
from models.families.settings import ModelSettings, SampleSettings
from models.sampling.sampler import Sampler
from tests.models.families.tiny import LENGTH, save_tiny_cogvideox

SETTINGS = SampleSettings(steps=2, guidance=1.0, height=32, width=32, frames=9, max_sequence_length=LENGTH)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_tiny_cogvideox(tmp_path, large=True)
    return tmp_path


def rewrite(path: Path, **change: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **change}), "utf-8")


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_every_training_timestep_is_found_again_from_its_noise_level(folder: Path, shift: float) -> None:
    rewrite(folder / "scheduler" / "scheduler_config.json", snr_shift_scale=shift)
    network: Any = get_family("cogvideox").load_transformer(
        ModelSettings(device="cpu", family="cogvideox", path=str(folder))
    )
    levels = network.noise_levels
    assert len(levels) == 1000
    assert bool((levels.diff() > 0).all())
    assert levels[-1] == 1, "zero signal at the end"
    every = torch.arange(1000)
    assert torch.equal(nearest_timestep(levels, levels), every)
    # the trainer's sigmas are float32; only next to pure noise are timesteps too close for it
    apart = levels < 1 - 1e-5
    assert torch.equal(nearest_timestep(levels, levels.float())[apart], every[apart])
    assert nearest_timestep(levels, torch.tensor([0.0, 1.0])).tolist() == [0, 999]


def test_the_small_and_the_large_model_differ_in_the_timestep_of_a_noise_level(tmp_path: Path) -> None:
    found = []
    for large in (False, True):
        save_tiny_cogvideox(tmp_path / str(large), large=large)
        settings = ModelSettings(device="cpu", family="cogvideox", path=str(tmp_path / str(large)))
        network: Any = get_family("cogvideox").load_transformer(settings)
        found.append(int(nearest_timestep(network.noise_levels, torch.tensor([0.85]))))
    assert found[0] < found[1] - 100


@pytest.mark.parametrize(
    ("config", "change", "told"),
    [
        ("transformer/config.json", {"patch_size_t": 2}, r"CogVideoX 1\.5"),
        ("transformer/config.json", {"in_channels": 8}, "image-to-video"),
        ("scheduler/scheduler_config.json", {"prediction_type": "epsilon"}, "prediction_type 'epsilon'"),
        ("scheduler/scheduler_config.json", {"_class_name": "DDIMScheduler"}, "is DDIMScheduler"),
    ],
)
def test_relatives_are_refused_because_they_would_be_silently_wrong(
    folder: Path, config: str, change: dict[str, Any], told: str
) -> None:
    rewrite(folder / config, **change)
    family = get_family("cogvideox")
    for load in (family.load_pipeline, family.load_transformer):
        with pytest.raises(UserError, match=told):
            load(ModelSettings(device="cpu", family="cogvideox", path=str(folder)))


def test_text_of_another_length_is_refused_because_the_network_sees_the_padding(folder: Path) -> None:
    model = ModelSettings(device="cpu", family="cogvideox", path=str(folder))
    with pytest.raises(UserError, match=f"trained with {LENGTH}"):
        Sampler.open(model, SETTINGS.changed(max_sequence_length=LENGTH + 1))
    sampler = Sampler.open(model, SETTINGS)
    with pytest.raises(UserError, match=f"trained with {LENGTH}"):
        sampler.family.encode_prompts(sampler.pipeline, ["a red ball falls down"], LENGTH + 1)


def test_frames_that_the_vae_would_not_give_back_are_refused(folder: Path) -> None:
    model = ModelSettings(device="cpu", family="cogvideox", path=str(folder))
    with pytest.raises(UserError, match="frames is 5; this model needs 1 \\+ a multiple of 8"):
        Sampler.open(model, SETTINGS.changed(frames=5))
    sampler = Sampler.open(model, SETTINGS)
    # five frames are two latent frames, and those decode to eight
    assert sampler.decode(torch.zeros(1, 4, 2, 4, 4)).shape[1] == 8


def test_a_flow_shift_is_refused_where_nothing_would_use_it(folder: Path) -> None:
    with pytest.raises(UserError, match=r"flow_shift.*CogVideoXDPMScheduler"):
        Sampler.open(
            ModelSettings(device="cpu", family="cogvideox", path=str(folder)),
            SETTINGS.changed(flow_shift=3.0),
        )
