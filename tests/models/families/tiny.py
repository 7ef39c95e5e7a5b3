"""Tiny random pipelines of every family, built from configurations, and what a test must know about each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    AutoencoderKLLTXVideo,
    AutoencoderKLWan,
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    FlowMatchEulerDiscreteScheduler,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel, UMT5Config, UMT5EncoderModel

from models.families.settings import SampleSettings
from tests.models.conftest import WORDS, save_tiny_wan

LENGTH = 16


@dataclass(frozen=True)
class Tiny:
    """One tiny model, and its pipeline's own conventions, written down apart from the code under test.

    Attributes:
        name: of the case; one family may have several.
        family: as in recipes.
        pipeline: the diffusers class that anyone would load the folder with.
        save: writes the model into a folder.
        settings: a geometry that it takes.
        stride: frames are 1 + a multiple of it.
        ours: the network's hidden states of `settings` as [B, C, T, H, W].
        sigma: the noise level, by (scheduler, timestep).
        normalise: a latent of the VAE as the pipeline keeps it, by (vae, z).
        path: noisy latent and target by the scheduler's own arithmetic, by (scheduler, x0, noise, timesteps).
        model: settings of the model beyond family and path.
        part: name of the network that is trained, with the noise levels at which the pipeline asks it: from the
            first of `levels` on, below the second.
        plain, decode, timesteps: keyword arguments that the plain pipeline, its VAE's `decode` and its scheduler's
            `set_timesteps` need beyond the common ones.
    """

    name: str
    family: str
    pipeline: Any
    save: Callable[[Path], None]
    settings: SampleSettings
    stride: int
    ours: Callable[[Tensor], Tensor]
    sigma: Callable[[Any, Tensor], Tensor]
    normalise: Callable[[Any, Tensor], Tensor]
    path: Callable[[Any, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
    model: dict[str, Any] = field(default_factory=dict)
    part: str = "transformer"
    levels: tuple[float, float] = (0.0, 1.0)
    plain: dict[str, Any] = field(default_factory=dict)
    decode: dict[str, Any] = field(default_factory=dict)
    timesteps: dict[str, Any] = field(default_factory=dict)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    tokens = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    tokens.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokens,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=LENGTH,
    )


def tiny_t5() -> T5EncoderModel:
    return T5EncoderModel(T5Config(vocab_size=32, d_model=32, d_kv=8, d_ff=37, num_layers=1, num_heads=4))


def save_tiny_ti2v(folder: Path) -> None:
    """Random Wan2.2 TI2V: a timestep a token, and a VAE of 16 pixels a latent cell with 48 channels."""
    torch.manual_seed(0)
    transformer = WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=4, attention_head_dim=12, in_channels=48, out_channels=48,
        text_dim=32, freq_dim=64, ffn_dim=32, num_layers=2, rope_max_seq_len=32,
    )  # fmt: skip
    vae = AutoencoderKLWan(
        base_dim=4, decoder_base_dim=6, z_dim=48, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
        temperal_downsample=[False, True, True], in_channels=12, out_channels=12, patch_size=2, is_residual=True,
        scale_factor_spatial=16, latents_mean=torch.linspace(-0.5, 0.5, 48).tolist(),
        latents_std=torch.linspace(0.5, 2.0, 48).tolist(),
    )  # fmt: skip
    text = UMT5EncoderModel(UMT5Config(vocab_size=32, d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4))
    # the published model's sampler
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=5.0
    )
    WanPipeline(
        tokenizer=tiny_tokenizer(), text_encoder=text, vae=vae, scheduler=scheduler, transformer=transformer,
        expand_timesteps=True,
    ).save_pretrained(folder)  # fmt: skip


def save_tiny_a14b(folder: Path) -> None:
    """Random Wan2.2 A14B: two networks that differ, over Wan2.1's VAE, and the published boundary between them."""
    save_tiny_wan(folder)
    wan = WanPipeline.from_pretrained(folder)
    torch.manual_seed(1)
    second = WanTransformer3DModel(
        **{k: v for k, v in wan.transformer.config.items() if not k.startswith("_")}
    )
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=5.0
    )
    parts = {**wan.components, "transformer_2": second, "scheduler": scheduler}
    WanPipeline(**parts, boundary_ratio=0.875).save_pretrained(folder)


def _a14b(name: str, expert: str, part: str, levels: tuple[float, float]) -> Tiny:
    return Tiny(
        name=name,
        family="wan-experts",
        pipeline=WanPipeline,
        save=save_tiny_a14b,
        # four steps for each expert
        settings=SampleSettings(
            steps=8, guidance=3.0, height=32, width=48, frames=9, max_sequence_length=LENGTH
        ),
        stride=4,
        ours=lambda hidden: hidden,
        sigma=lambda scheduler, t: t / 1000,
        normalise=_wan_normalise,
        path=_unipc_path,
        model={"expert": expert},
        part=part,
        levels=levels,
    )


def save_tiny_cogvideox(folder: Path, *, large: bool, **transformer_config: Any) -> None:
    """Random CogVideoX: as 5B (rotary positions, DPM) or as 2B (sine positions, DDIM, shifted SNR)."""
    torch.manual_seed(0)
    config = {
        "num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 4, "out_channels": 4,
        "time_embed_dim": 8, "text_embed_dim": 32, "num_layers": 2, "sample_width": 4, "sample_height": 6,
        "sample_frames": 17, "max_text_seq_length": LENGTH, "use_rotary_positional_embeddings": large,
    }  # fmt: skip
    transformer = CogVideoXTransformer3DModel(**{**config, **transformer_config})
    vae = AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4, up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(4, 4, 4, 4), latent_channels=4, layers_per_block=1, norm_num_groups=2,
        scaling_factor=0.7 if large else 1.15258426,
    )  # fmt: skip
    kind = CogVideoXDPMScheduler if large else CogVideoXDDIMScheduler
    # the published models' values
    scheduler = kind(
        prediction_type="v_prediction", timestep_spacing="trailing", rescale_betas_zero_snr=True,
        clip_sample=False, snr_shift_scale=1.0 if large else 3.0,
    )  # fmt: skip
    CogVideoXPipeline(
        tokenizer=tiny_tokenizer(),
        text_encoder=tiny_t5(),
        vae=vae,
        transformer=transformer,
        scheduler=scheduler,
    ).save_pretrained(folder)


def save_tiny_ltx(folder: Path, **vae_config: Any) -> None:
    """Random LTX-Video with the real compression: 8 frames and 32 pixels a latent cell."""
    torch.manual_seed(0)
    transformer = LTXVideoTransformer3DModel(
        in_channels=8, out_channels=8, num_attention_heads=2, attention_head_dim=16, cross_attention_dim=32,
        num_layers=2, caption_channels=32,
    )  # fmt: skip
    config = {
        "latent_channels": 8, "block_out_channels": (4, 4, 4, 4), "decoder_block_out_channels": (4, 4, 4, 4),
        "layers_per_block": (1,) * 5, "decoder_layers_per_block": (1,) * 5, "scaling_factor": 0.8,
    }  # fmt: skip
    vae = AutoencoderKLLTXVideo(**{**config, **vae_config})
    vae.latents_mean.copy_(torch.linspace(-0.5, 0.5, 8))
    vae.latents_std.copy_(torch.linspace(0.5, 2.0, 8))
    # the published model's values
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024,
        max_image_seq_len=4096, shift_terminal=0.1,
    )  # fmt: skip
    LTXPipeline(
        scheduler=scheduler, vae=vae, text_encoder=tiny_t5(), tokenizer=tiny_tokenizer(), transformer=transformer,
    ).save_pretrained(folder)  # fmt: skip


def _ltx_normalise(vae: Any, z: Tensor) -> Tensor:
    mean, std = (stat.view(1, -1, 1, 1, 1) for stat in (vae.latents_mean, vae.latents_std))
    return (z - mean) * vae.config.scaling_factor / std


def _wan_normalise(vae: Any, z: Tensor) -> Tensor:
    mean, std = (torch.tensor(vae.config[f"latents_{key}"]).view(1, -1, 1, 1, 1) for key in ("mean", "std"))
    return (z - mean) / std


def _flow_path(scheduler: Any, x0: Tensor, noise: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor]:
    return scheduler.scale_noise(x0, timestep, noise), noise - x0


def _unipc_path(scheduler: Any, x0: Tensor, noise: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor]:
    # its timesteps are whole, its own sigmas are not: the arithmetic at the noise level that the network is told
    alpha, sigma = scheduler._sigma_to_alpha_sigma_t(timestep.view(-1, 1, 1, 1, 1) / 1000)
    noisy = alpha * x0 + sigma * noise
    return noisy, (noisy - x0) / sigma


def _v_path(scheduler: Any, x0: Tensor, noise: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor]:
    return scheduler.add_noise(x0, noise, timestep), scheduler.get_velocity(x0, noise, timestep)


def _cogvideox(name: str, large: bool) -> Tiny:
    return Tiny(
        name=name,
        family="cogvideox",
        pipeline=CogVideoXPipeline,
        save=lambda folder: save_tiny_cogvideox(folder, large=large),
        settings=SampleSettings(
            steps=4, guidance=3.0, height=32, width=48, frames=9, max_sequence_length=LENGTH
        ),
        stride=8,
        ours=lambda hidden: hidden.permute(0, 2, 1, 3, 4),
        sigma=lambda scheduler, t: (1 - scheduler.alphas_cumprod[t.long()]).sqrt(),
        normalise=lambda vae, z: z * vae.config.scaling_factor,
        path=_v_path,
    )


CASES = (
    Tiny(
        name="wan",
        family="wan",
        pipeline=WanPipeline,
        save=save_tiny_wan,
        settings=SampleSettings(
            steps=3, guidance=3.0, height=32, width=48, frames=9, max_sequence_length=LENGTH
        ),
        stride=4,
        ours=lambda hidden: hidden,
        sigma=lambda scheduler, t: t / 1000,
        normalise=_wan_normalise,
        path=_flow_path,
    ),
    Tiny(
        name="wan2.2-ti2v",
        family="wan",
        pipeline=WanPipeline,
        save=save_tiny_ti2v,
        settings=SampleSettings(
            steps=3, guidance=3.0, height=64, width=96, frames=9, max_sequence_length=LENGTH
        ),
        stride=4,
        ours=lambda hidden: hidden,
        # told once a token; from text alone they are all equal
        sigma=lambda scheduler, t: (t[:, 0] if t.ndim == 2 else t) / 1000,
        normalise=_wan_normalise,
        path=_unipc_path,
    ),
    _a14b("wan2.2-a14b-high", "high", "transformer", (0.875, 1.0)),
    _a14b("wan2.2-a14b-low", "low", "transformer_2", (0.0, 0.875)),
    _cogvideox("cogvideox-2b", large=False),
    _cogvideox("cogvideox-5b", large=True),
    Tiny(
        name="ltx",
        family="ltx",
        pipeline=LTXPipeline,
        save=save_tiny_ltx,
        settings=SampleSettings(
            steps=4, guidance=3.0, height=64, width=96, frames=9, max_sequence_length=LENGTH
        ),
        stride=8,
        ours=lambda hidden: hidden.unflatten(1, (2, 2, 3)).permute(0, 4, 1, 2, 3),
        sigma=lambda scheduler, t: t / 1000,
        normalise=_ltx_normalise,
        path=_flow_path,
        model={"frame_rate": 12},
        plain={"frame_rate": 12},
        timesteps={"mu": 1.0},
    ),
)
