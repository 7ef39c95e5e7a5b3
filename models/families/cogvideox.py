"""CogVideoX text-to-video (2B, 5B) over diffusers' `CogVideoXPipeline`: v-prediction, T5 text, causal VAE.

The pipeline keeps latents as [B, T, C, H, W]; here they are [B, C, T, H, W], as everywhere in models/. Its
guidance is one batch of twice the size, and since sampling is the pipeline's own loop, ours is too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from data.errors import ModelError
from models.families.base import Family, Frames, encoded, load_config, pixels
from models.families.fit import Grid, Read, check_tokens
from models.families.settings import ModelSettings, SampleSettings
from models.lazy import LazyModule
from models.parameterization import VPrediction

if TYPE_CHECKING:
    import diffusers
    import torch
    from torch import Tensor, nn
else:
    diffusers, torch = LazyModule("diffusers"), LazyModule("torch")

_SCHEDULERS: Final = ("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler")
# An even number of latent frames decodes to more frames than were asked for: the VAE treats the first frame
# apart only where their number is odd.
_LATENTS: Final = 2


class CogVideoX(Family):
    """CogVideoX 2B and 5B. Text is padded to the length of training and not masked.

    The path of `VPrediction` is that of the model: sigma = sqrt(1 - alphas_cumprod[t]). Which timestep t
    belongs to a sigma differs by model (2B and 5B shift the signal-to-noise ratio differently), so the table
    is read from the model's scheduler and goes with the network, as its buffer `noise_levels`.
    """

    name = "cogvideox"
    pipeline_class, network_class = "CogVideoXPipeline", "CogVideoXTransformer3DModel"
    training_parts = ("scheduler",)
    parameterization = VPrediction()
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")

    def grid(self, read: Read) -> Grid | None:
        """By the VAE's strides, the network's patch and its length of text."""
        vae, network = read("vae"), read("transformer")
        if not vae or not network:
            return None
        spatial = 2 ** (len(vae["block_out_channels"]) - 1)
        temporal = int(vae.get("temporal_compression_ratio", 4))
        side = spatial * network.get("patch_size", 2)
        return Grid(_LATENTS * temporal, side, side, tokens=network.get("max_text_seq_length", 226))

    def facts(self, settings: ModelSettings) -> dict[str, Any]:
        """See `Family.facts`: the table of noise levels, by the scheduler's configuration.

        CogVideoX 1.5 pads latents in time, image-to-video takes twice the channels: both would be wrong.
        """
        config = load_config(settings, diffusers.CogVideoXTransformer3DModel, "transformer")
        if config.get("patch_size_t") is not None:
            raise ModelError(
                f"{settings.path} is a CogVideoX 1.5 model; family cogvideox is CogVideoX 2B and 5B"
            )
        if config.get("in_channels") != config.get("out_channels"):
            raise ModelError(f"{settings.path} is an image-to-video model; family cogvideox is text-to-video")
        return {"noise_levels": _noise_levels(settings)}

    def encode_prompts(
        self, pipeline: diffusers.CogVideoXPipeline, prompts: Sequence[str], max_sequence_length: int
    ) -> Tensor:
        """See `Family.encode_prompts`.

        Raises:
            ModelError: another length than the network was trained with (226): it sees the padding.
        """
        check_tokens(max_sequence_length, pipeline.transformer.config.max_text_seq_length)
        return super().encode_prompts(pipeline, prompts, max_sequence_length)

    def arranged(self, pipeline: Any, latents: Tensor, settings: SampleSettings) -> Tensor:
        """See `Family.arranged`."""
        return latents.transpose(1, 2).contiguous()

    def decode(self, pipeline: diffusers.CogVideoXPipeline, latents: Tensor) -> Frames:
        """See `Family.decode`. De-normalises as `CogVideoXPipeline.decode_latents` does."""
        vae = pipeline.vae
        scaled = 1 / vae.config.scaling_factor * latents.to(vae.device, vae.dtype)
        with torch.no_grad():
            return pixels(vae.decode(scaled).sample)

    def encode(self, pipeline: diffusers.CogVideoXPipeline, frames: Frames) -> Tensor:
        """See `Family.encode`."""
        scaling: float = pipeline.vae.config.scaling_factor
        return scaling * encoded(pipeline.vae, frames)

    def predict(self, transformer: nn.Module, noisy: Tensor, sigma: Tensor, embeds: Tensor) -> Tensor:
        """See `Family.predict`.

        The network knows whole timesteps only, so it is told the one whose noise level is nearest: off by at
        most half a step of the training grid.
        """
        network: Any = transformer
        dtype = network.dtype
        prediction: Tensor = network(
            hidden_states=noisy.to(dtype).transpose(1, 2),
            timestep=nearest_timestep(network.noise_levels, sigma),
            encoder_hidden_states=embeds.to(dtype),
            image_rotary_emb=_rotary(network.config, noisy),
            return_dict=False,
        )[0]
        return prediction.transpose(1, 2)


def nearest_timestep(noise_levels: Tensor, sigma: Tensor) -> Tensor:
    """int64 [B], the training timestep whose noise level lies nearest to sigma [B].

    Args:
        noise_levels: float64 [1000], ascending. (In float32 the last of them are one and the same number.)
    """
    borders = (noise_levels[1:] + noise_levels[:-1]) / 2
    return torch.bucketize(sigma.to(noise_levels), borders)


def _noise_levels(settings: ModelSettings) -> Tensor:
    """sigma = sqrt(1 - alphas_cumprod) of every training timestep, float64 [1000], by its own scheduler."""
    config = load_config(settings, diffusers.CogVideoXDDIMScheduler, "scheduler")
    kind = config["_class_name"]
    if kind not in _SCHEDULERS:
        raise ModelError(
            f"the scheduler of {settings.path} is {kind}; CogVideoX has {' or '.join(_SCHEDULERS)}"
        )
    if config.get("prediction_type") != "v_prediction":
        raise ModelError(
            f"the scheduler of {settings.path} has prediction_type {config.get('prediction_type')!r}; "
            "CogVideoX predicts v: set it to v_prediction in scheduler_config.json"
        )
    levels: Tensor = (1 - getattr(diffusers, kind).from_config(config).alphas_cumprod.double()).sqrt()
    return levels


def _rotary(config: Any, noisy: Tensor) -> tuple[Tensor, Tensor] | None:
    """Rotary position embedding of a latent [B, C, T, H, W], as the pipeline makes it; 2B has none."""
    if not config.use_rotary_positional_embeddings:
        return None
    patch = config.patch_size
    size = (noisy.shape[3] // patch, noisy.shape[4] // patch)
    from diffusers.models.embeddings import get_3d_rotary_pos_embed
    from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid

    crop = get_resize_crop_region_for_grid(size, config.sample_width // patch, config.sample_height // patch)
    cos, sin = get_3d_rotary_pos_embed(
        embed_dim=config.attention_head_dim,
        crops_coords=crop,
        grid_size=size,
        temporal_size=noisy.shape[2],
        device=noisy.device,
    )
    return cos, sin


FAMILY: Final = CogVideoX()
