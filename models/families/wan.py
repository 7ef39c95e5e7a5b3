"""Wan2.1 and Wan2.2 TI2V over diffusers' `WanPipeline`, from text: rectified flow, UMT5, causal video VAE.

Wan2.2 A14B, which has two networks, is `wan_experts`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from data.errors import ModelError
from models.families.base import (
    Frames,
    OneNetwork,
    check_folder,
    load_arguments,
    load_config,
    loading,
    pixels,
    ready,
    ready_pipeline,
    without_gradients,
)
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

# What `WanPipeline.check_inputs` asks of height and width.
_PIXELS: Final = 16

# The network was trained with timestep = 1000 sigma; every Wan scheduler uses the same grid.
TRAIN_TIMESTEPS: Final = 1000


class Wan(OneNetwork):
    """Wan2.1 T2V, and Wan2.2 TI2V where it makes a clip from text alone.

    Text embeddings are padded with zeros and not masked, in sampling and in training alike.

    The pipeline tells a TI2V network one timestep a token (`expand_timesteps`), so that a given first frame
    could have another; from text alone all are equal, and `predict` says it once a clip: the same numbers up
    to the order of sums, without [B, tokens, 6, width] of modulation that a backward pass would have to keep.
    """

    name = "wan"
    parameterization = FlowMatching()
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2")

    def grid(self, read: Read) -> Grid | None:
        """By the VAE's strides and the network's patch; defaults are those of diffusers' classes."""
        vae, network = read("vae"), read("transformer")
        if not vae or not network:
            return None
        first, second, third = network.get("patch_size", (1, 2, 2))
        temporal, spatial = vae.get("scale_factor_temporal", 4), vae.get("scale_factor_spatial", 8)
        return _grid(temporal, spatial, (first, second, third))

    def load_pipeline(self, settings: ModelSettings) -> diffusers.WanPipeline:
        """See `Family.load_pipeline`."""
        check_folder(settings, ("transformer", "vae", "text_encoder", "tokenizer", "scheduler"))
        self._refuse(settings)
        with loading(settings, "the pipeline"):
            pipeline = diffusers.WanPipeline.from_pretrained(settings.path, **load_arguments(settings))
        return ready_pipeline(pipeline, settings, self.experts)

    def load_transformer(self, settings: ModelSettings) -> nn.Module:
        """See `Family.load_transformer`."""
        part = self._part(settings)
        check_folder(settings, (part,))
        self._refuse(settings)
        with loading(settings, f"the {part}"):
            transformer = diffusers.WanTransformer3DModel.from_pretrained(
                settings.path, subfolder=part, **load_arguments(settings)
            )
        return ready(transformer, settings).to(settings.torch_device)

    @without_gradients
    def encode_prompts(
        self, pipeline: diffusers.WanPipeline, prompts: Sequence[str], max_sequence_length: int
    ) -> Tensor:
        """See `Family.encode_prompts`."""
        embeds: Tensor = pipeline.encode_prompt(
            list(prompts), do_classifier_free_guidance=False, max_sequence_length=max_sequence_length
        )[0]
        return embeds

    def sample_latents(
        self,
        pipeline: diffusers.WanPipeline,
        embeds: Tensor,
        negative: Tensor | None,
        seeds: Sequence[int],
        settings: SampleSettings,
    ) -> Tensor:
        """See `Family.sample_latents`."""
        shape = latent_shape(pipeline, settings)
        if settings.guidance_2 is not None and pipeline.config.boundary_ratio is None:
            raise ModelError("generate.guidance_2 is for models of two experts; this model has one network")
        if len(seeds) != len(embeds):
            raise ValueError(f"{len(seeds)} seeds for {len(embeds)} prompts")
        # One CPU generator a clip: the same noise on every device, in every batch.
        noise = torch.stack(
            [torch.randn(shape, generator=torch.Generator("cpu").manual_seed(s)) for s in seeds]
        )
        out = pipeline(
            prompt_embeds=embeds,
            negative_prompt_embeds=negative,
            latents=noise,
            height=settings.height,
            width=settings.width,
            num_frames=settings.frames,
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            guidance_scale_2=settings.guidance_2,
            max_sequence_length=settings.max_sequence_length,
            output_type="latent",
            return_dict=False,
        )
        latents: Tensor = out[0].float()
        return latents

    @without_gradients
    def decode(self, pipeline: diffusers.WanPipeline, latents: Tensor) -> Frames:
        """See `Family.decode`. De-normalises as `WanPipeline` does: z * std + mean, channel by channel."""
        vae = pipeline.vae
        latents = latents.to(vae.device, vae.dtype)
        mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1).to(latents)
        # Written as a division by 1 / std, because that is how the pipeline rounds.
        inverse_std = 1.0 / torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1).to(latents)
        return pixels(vae.decode(latents / inverse_std + mean, return_dict=False)[0])

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

    def _part(self, settings: ModelSettings) -> str:
        """Name of the network that training loads."""
        return "transformer"

    def _refuse(self, settings: ModelSettings) -> None:
        """Raise ModelError for models that `WanPipeline` would load and run, but not as they were made."""
        index = load_config(settings, diffusers.WanPipeline)
        # One TI2V network makes clips from text or from a picture, whatever pipeline its index names.
        if index["_class_name"] != diffusers.WanPipeline.__name__ and not index.get("expand_timesteps"):
            raise ModelError(
                f"{settings.path} is made for {index['_class_name']}; family {self.name} drives "
                f"{diffusers.WanPipeline.__name__}"
            )
        self._refuse_networks(settings, index)

    def _refuse_networks(self, settings: ModelSettings, index: dict[str, Any]) -> None:
        """See `_refuse`: what depends on how many networks there are."""
        if index.get("boundary_ratio") is not None or any(index.get("transformer_2") or ()):
            raise ModelError(
                f"{settings.path} is a Wan2.2 model of two experts (transformer_2, boundary_ratio): say "
                "model.family: wan-experts"
            )
        refuse_network(settings, "transformer", index)


def _grid(temporal: int, spatial: int, patch: tuple[int, int, int]) -> Grid:
    """Of strides of the VAE, and the patch (T, H, W) of latent cells that is a token."""
    return Grid(
        frames=temporal,
        height=math.lcm(_PIXELS, spatial * patch[1]),
        width=math.lcm(_PIXELS, spatial * patch[2]),
        depth=patch[0],
    )


def latent_shape(pipeline: diffusers.WanPipeline, settings: SampleSettings) -> tuple[int, int, int, int]:
    """(C, T, H, W) of one clip's latent.

    Raises:
        ModelError: the geometry is not on the model's grid. (The pipeline itself would round it and only
        warn.)
    """
    temporal, spatial = pipeline.vae_scale_factor_temporal, pipeline.vae_scale_factor_spatial
    _grid(temporal, spatial, tuple(pipeline.transformer.config.patch_size)).check(settings)
    depth = (settings.frames - 1) // temporal + 1
    channels = pipeline.transformer.config.in_channels
    return channels, depth, settings.height // spatial, settings.width // spatial


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
