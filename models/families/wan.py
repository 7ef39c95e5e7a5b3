"""Wan2.1 and Wan2.2 TI2V over diffusers' `WanPipeline`, from text: rectified flow, UMT5, causal video VAE.

Wan2.2 A14B, which has two networks, is `wan_experts`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from data.errors import ModelError
from models.families.base import Family, Frames, encoded, load_config, pixels
from models.families.fit import Grid, Read
from models.families.settings import ModelSettings
from models.lazy import LazyModule
from models.parameterization import FlowMatching

if TYPE_CHECKING:
    import diffusers
    import torch
    from torch import Tensor, nn
else:
    diffusers, torch = LazyModule("diffusers"), LazyModule("torch")

# What `WanPipeline.check_inputs` asks of height and width.
_PIXELS: Final = 16

# The network was trained with timestep = 1000 sigma; every Wan scheduler uses the same grid.
TRAIN_TIMESTEPS: Final = 1000


class Wan(Family):
    """Wan2.1 T2V, and Wan2.2 TI2V where it makes a clip from text alone.

    Text embeddings are padded with zeros and not masked, in sampling and in training alike.

    The pipeline tells a TI2V network one timestep a token (`expand_timesteps`), so that a given first frame
    could have another; from text alone all are equal, and `predict` says it once a clip: the same numbers up
    to the order of sums, without [B, tokens, 6, width] of modulation that a backward pass would have to keep.
    """

    name = "wan"
    pipeline_class, network_class = "WanPipeline", "WanTransformer3DModel"
    parameterization = FlowMatching()
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2")

    def grid(self, read: Read) -> Grid | None:
        """By the VAE's strides and the network's patch; defaults are those of diffusers' classes."""
        vae, network = read("vae"), read("transformer")
        if not vae or not network:
            return None
        depth, *sides = network.get("patch_size", (1, 2, 2))
        height, width = (math.lcm(_PIXELS, vae.get("scale_factor_spatial", 8) * side) for side in sides)
        return Grid(vae.get("scale_factor_temporal", 4), height, width, depth)

    def facts(self, settings: ModelSettings) -> dict[str, Any]:
        """See `Family.facts`: none, but relatives are refused."""
        index = load_config(settings, diffusers.WanPipeline)
        # One TI2V network makes clips from text or from a picture, whatever pipeline its index names.
        if index["_class_name"] != self.pipeline_class and not index.get("expand_timesteps"):
            raise ModelError(
                f"{settings.path} is made for {index['_class_name']}; family {self.name} drives "
                f"{self.pipeline_class}"
            )
        self._refuse_networks(settings, index)
        return {}

    def decode(self, pipeline: diffusers.WanPipeline, latents: Tensor) -> Frames:
        """See `Family.decode`. De-normalises as `WanPipeline` does: z * std + mean, channel by channel."""
        vae = pipeline.vae
        latents = latents.to(vae.device, vae.dtype)
        mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1).to(latents)
        # Written as a division by 1 / std, because that is how the pipeline rounds.
        inverse_std = 1.0 / torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1).to(latents)
        with torch.no_grad():
            return pixels(vae.decode(latents / inverse_std + mean, return_dict=False)[0])

    def encode(self, pipeline: diffusers.WanPipeline, frames: Frames) -> Tensor:
        """See `Family.encode`: (z - mean) / std, channel by channel."""
        vae = pipeline.vae
        latents = encoded(vae, frames)
        mean, std = (
            torch.tensor(values).view(1, -1, 1, 1, 1).to(latents)
            for values in (vae.config.latents_mean, vae.config.latents_std)
        )
        return (latents - mean) / std

    def predict(self, transformer: nn.Module, noisy: Tensor, sigma: Tensor, embeds: Tensor) -> Tensor:
        """See `Family.predict`."""
        network: Any = transformer
        dtype = network.dtype
        prediction: Tensor = network(
            hidden_states=noisy.to(dtype),
            timestep=sigma * TRAIN_TIMESTEPS,
            encoder_hidden_states=embeds.to(dtype),
            return_dict=False,
        )[0]
        return prediction

    def _refuse_networks(self, settings: ModelSettings, index: dict[str, Any]) -> None:
        """Refuse what depends on how many networks there are."""
        if index.get("boundary_ratio") is not None or any(index.get("transformer_2") or ()):
            raise ModelError(
                f"{settings.path} is a Wan2.2 model of two experts (transformer_2, boundary_ratio): say "
                "model.family: wan-experts"
            )
        refuse_network(settings, "transformer", index)


def refuse_network(settings: ModelSettings, part: str, index: dict[str, Any]) -> None:
    """Raise ModelError if the network called `part` is made for pictures, or its patches do not fit.

    Args:
        index: configuration of the pipeline.
    """
    network = load_config(settings, diffusers.WanTransformer3DModel, part)
    takes, patch = network.get("in_channels", 16), tuple(network.get("patch_size", (1, 2, 2)))
    gives = network.get("out_channels") or takes  # the class's own defaults
    if takes != gives:
        raise ModelError(
            f"the {part} of {settings.path} takes {takes} channels and gives {gives}: it is made for "
            "image to video; family wan is text to video"
        )
    if index.get("expand_timesteps") and patch != (1, 2, 2):
        raise ModelError(
            f"the {part} of {settings.path} has patches of {patch}; the pipeline's "
            "timestep a token (expand_timesteps) fits (1, 2, 2) only"
        )


FAMILY: Final = Wan()
