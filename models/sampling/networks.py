"""How a sampler's networks compute, in words."""

from __future__ import annotations

from typing import Any

from data.networks import network_line, transformers_line
from models.compile import attention_on, repeated_blocks
from models.families.base import EXPERT_PARTS
from models.sampling.sampler import Sampler


def sampler_lines(sampler: Sampler) -> dict[str, str]:
    """A line for each network that samples: policy (by its expert's noise, of two), text encoder, VAE."""
    experts = {part: f"policy, {expert} noise" for expert, part in EXPERT_PARTS.items()}
    offloader, cache = sampler.offloader, sampler.settings.step_cache
    found = {}
    for part, network in sampler.networks.items():
        diffusers_model: Any = network  # nn.Module does not declare its dtype
        weights = "" if sampler.quantised == "none" else f" with weights as {sampler.quantised}"
        found[experts[part] if sampler.family.experts else "policy"] = network_line(
            type(network).__name__,
            str(sampler.device),
            f"{diffusers_model.dtype}{weights}",
            attention_on(sampler.device),
            f"{len(repeated_blocks(network))} blocks compiled" if sampler.compiled else "not compiled",
            "no step cache" if cache is None else f"step cache {cache.describe()}",
            "not offloaded" if offloader is None or offloader.stays else "offloaded: experts take turns",
        )
    encoder, vae = sampler.source.text_encoder, sampler.pipeline.vae
    stays = "not offloaded" if offloader is None else "offloaded between prompts"
    found["text encoder"] = transformers_line(encoder, str(sampler.device), stays)
    found["vae"] = network_line(type(vae).__name__, str(sampler.device), vae.dtype)
    return found
