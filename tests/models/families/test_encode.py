"""Frames from outside become what the family's sampler leaves."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from models.families.base import Family
from models.families.settings import ModelSettings
from models.sampling.sampler import Sampler
from tests.models.families.every_family import case, family, folder, model, network, plain
from tests.models.families.tiny import Tiny

__all__ = ["case", "family", "folder", "model", "network", "plain"]
PROMPTS = ["a red ball falls down", "a blue square moves left"]
SEEDS = [11, 12]


def test_frames_are_encoded_to_what_the_sampler_leaves(
    case: Tiny, model: ModelSettings, plain: Any, family: Family
) -> None:
    size = case.settings
    frames = torch.randint(
        0, 256, (2, size.frames, size.height, size.width, 3), generator=torch.Generator().manual_seed(0)
    )
    video = frames.permute(0, 4, 1, 2, 3) / 127.5 - 1
    with torch.no_grad():
        z = plain.vae.encode(video).latent_dist.mode()
        through = plain.vae.decode(z, **case.decode).sample
    latents = family.encode(plain, frames.numpy().astype(np.uint8))
    assert latents.dtype == torch.float32
    torch.testing.assert_close(latents, case.normalise(plain.vae, z), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(latents, z, atol=0.01), "or the test could not fail"
    # What decoding undoes: of the frames only what the VAE itself loses is lost.
    back = torch.from_numpy(family.decode(plain, latents)).permute(0, 4, 1, 2, 3)
    assert (back - ((through * 0.5 + 0.5).clamp(0, 1) * 255).round()).abs().max() <= 1
    # As the sampler's own in shape, and a clip at a time as all together.
    sampler = Sampler.open(model, size.changed(decode_batch=1))
    alone = sampler.encode_frames(frames.numpy().astype(np.uint8))
    torch.testing.assert_close(alone, latents, rtol=1e-4, atol=1e-4)
    assert alone.shape == sampler.generate(PROMPTS, SEEDS).latents.shape
