"""LTX-Video text-to-video over diffusers' `LTXPipeline`: rectified flow over packed latents, T5 text.

The network takes latents as tokens [B, T H W, C]; here they are [B, C, T, H, W], as everywhere in models/.
Its guidance is one batch of twice the size, and since sampling is the pipeline's own loop, ours is too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from data.errors import ModelError
from models.families.base import Family, Frames, encoded, load_config, pixels
from models.families.fit import Grid, Read
from models.families.settings import ModelSettings, SampleSettings
from models.lazy import LazyModule
from models.parameterization import FlowMatching

if TYPE_CHECKING:
    import diffusers
    import torch
    from torch import Tensor, nn
else:
    diffusers, torch = LazyModule("diffusers"), LazyModule("torch")

# What `LTXPipeline.check_inputs` asks of height and width.
_PIXELS: Final = 32

TRAIN_TIMESTEPS: Final = 1000
# What `LTXPipeline` takes where nobody names a frame rate.
DEFAULT_FRAME_RATE: Final = 25


class LTX(Family):
    """LTX-Video. Text is masked, and the mask travels in the embeddings: rows of padding are zero.

    The network masks those rows with a weight of exactly 0, so zeroing them changes nothing; a real token's
    row is never zero, because it comes out of a layer norm.
    """

    name = "ltx"
    pipeline_class, network_class = "LTXPipeline", "LTXVideoTransformer3DModel"
    training_parts = ("vae",)  # its configuration
    parameterization = FlowMatching()
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")

    def grid(self, read: Read) -> Grid | None:
        """By the VAE's strides and the scheduler; defaults are those of diffusers' classes."""
        vae = read("vae")
        if not vae or not read("transformer"):
            return None
        halvings = sum(map(bool, vae["spatio_temporal_scaling"]))
        temporal = vae.get("temporal_compression_ratio") or vae["patch_size_t"] * 2**halvings
        spatial = vae.get("spatial_compression_ratio") or vae["patch_size"] * 2**halvings
        side = math.lcm(_PIXELS, spatial)
        # A schedule that is stretched to a last level divides zero by zero where it has a single step.
        return Grid(temporal, side, side, steps=2 if read("scheduler").get("shift_terminal") else 1)

    def facts(self, settings: ModelSettings) -> dict[str, Any]:
        """See `Family.facts`: the frame rate, and what turns latent cells into seconds and pixels."""
        _refuse_relatives(settings)
        config = load_config(settings, diffusers.AutoencoderKLLTXVideo, "vae")
        with torch.device("meta"):  # diffusers' own rule, without memory for weights
            vae = diffusers.AutoencoderKLLTXVideo.from_config(config)
        rate = DEFAULT_FRAME_RATE if settings.frame_rate is None else settings.frame_rate
        return position_facts(rate, vae.temporal_compression_ratio, vae.spatial_compression_ratio)

    def encode_prompts(
        self, pipeline: diffusers.LTXPipeline, prompts: Sequence[str], max_sequence_length: int
    ) -> Tensor:
        """See `Family.encode_prompts`; rows of padding are zero."""
        with torch.no_grad():
            embeds, mask, _, _ = pipeline.encode_prompt(
                list(prompts), do_classifier_free_guidance=False, max_sequence_length=max_sequence_length
            )
        zeroed: Tensor = embeds.masked_fill(~mask.unsqueeze(-1), 0)
        return zeroed

    def told(
        self, pipeline: Any, embeds: Tensor, negative: Tensor | None, settings: SampleSettings
    ) -> dict[str, Any]:
        """See `Family.told`."""
        return {
            "prompt_attention_mask": _mask(embeds),
            "negative_prompt_attention_mask": None if negative is None else _mask(negative),
            "frame_rate": pipeline.transformer.frame_rate,
        }

    def arranged(self, pipeline: Any, latents: Tensor, settings: SampleSettings) -> Tensor:
        """See `Family.arranged`."""
        temporal, spatial = pipeline.vae_temporal_compression_ratio, pipeline.vae_spatial_compression_ratio
        depth = (settings.frames - 1) // temporal + 1
        size = depth, settings.height // spatial, settings.width // spatial
        return _unpack(pipeline.transformer, latents, size)

    def decode(self, pipeline: diffusers.LTXPipeline, latents: Tensor) -> Frames:
        """See `Family.decode`. As the pipeline by default: a VAE that asks for a timestep is told 0."""
        vae = pipeline.vae
        z = diffusers.LTXPipeline._denormalize_latents(
            latents.to(vae.device), vae.latents_mean, vae.latents_std, vae.config.scaling_factor
        ).to(vae.dtype)
        timestep = z.new_zeros(len(z)) if vae.config.timestep_conditioning else None
        with torch.no_grad():
            return pixels(vae.decode(z, timestep, return_dict=False)[0])

    def encode(self, pipeline: diffusers.LTXPipeline, frames: Frames) -> Tensor:
        """See `Family.encode`."""
        vae = pipeline.vae
        latents: Tensor = diffusers.LTXPipeline._normalize_latents(
            encoded(vae, frames), vae.latents_mean, vae.latents_std, vae.config.scaling_factor
        )
        return latents

    def predict(self, transformer: nn.Module, noisy: Tensor, sigma: Tensor, embeds: Tensor) -> Tensor:
        """See `Family.predict`."""
        network: Any = transformer
        dtype = network.dtype
        depth, height, width = noisy.shape[2:]
        patch = network.config.patch_size, network.config.patch_size_t
        prediction: Tensor = network(
            hidden_states=diffusers.LTXPipeline._pack_latents(noisy.to(dtype), *patch),
            timestep=sigma * TRAIN_TIMESTEPS,
            encoder_hidden_states=embeds.to(dtype),
            encoder_attention_mask=_mask(embeds),
            num_frames=depth,
            height=height,
            width=width,
            rope_interpolation_scale=network.position_scale,
            return_dict=False,
        )[0]
        return _unpack(network, prediction, (depth, height, width))


def position_facts(frame_rate: float, temporal: int, spatial: int) -> dict[str, Any]:
    """What the network is told: seconds and pixels a latent cell, for cells of so many frames and pixels."""
    return {"frame_rate": frame_rate, "position_scale": (temporal / frame_rate, spatial, spatial)}


def _mask(embeds: Tensor) -> Tensor:
    """bool [B, L], where embeddings [B, L, D] hold a token."""
    return (embeds != 0).any(-1)


def _unpack(network: Any, packed: Tensor, size: tuple[int, int, int]) -> Tensor:
    """Tokens [B, T H W, C] as [B, C, T, H, W]."""
    patch = network.config.patch_size, network.config.patch_size_t
    latents: Tensor = diffusers.LTXPipeline._unpack_latents(packed, *size, *patch).contiguous()
    return latents


def _refuse_relatives(settings: ModelSettings) -> None:
    """Models that `LTXPipeline` would load and run, but not as they were made to be run."""
    kind = load_config(settings, diffusers.LTXPipeline)["_class_name"]
    if kind != diffusers.LTXPipeline.__name__:
        raise ModelError(
            f"{settings.path} is made for {kind}; family ltx drives {diffusers.LTXPipeline.__name__}"
        )
    network = load_config(settings, diffusers.LTXVideoTransformer3DModel, "transformer")
    if (network.get("patch_size", 1), network.get("patch_size_t", 1)) != (1, 1):
        raise ModelError(
            f"{settings.path} has patches of latents; diffusers' diffusers.LTXPipeline handles size 1 only"
        )
    if any(load_config(settings, diffusers.AutoencoderKLLTXVideo, "vae").get("decoder_inject_noise", ())):
        raise ModelError(
            f"the VAE of {settings.path} adds noise of its own while it decodes: a stored latent would not "
            "be one clip. Take a release whose decoder_inject_noise is all false"
        )


FAMILY: Final = LTX()
