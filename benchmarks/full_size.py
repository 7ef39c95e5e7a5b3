"""Models of published sizes with random weights, made on the device: time and memory need no checkpoint.

The configurations are those of the published repositories in diffusers layout. Nothing is downloaded and
nothing is read from disk but a tokenizer that comes with this repository (its words are the miniature's; what
a prompt says does not change how long it takes). Weights are drawn so that every block matters: with the
library's own start values the residual stream passes nearly unchanged, and errors of single blocks would not
show at the end.

Sizes called "tiny" have the same classes and cost nothing; tests run the benchmarks on them.

    python -m benchmarks.full_size --family wan --size 1.3b --out FOLDER

writes such a model to `FOLDER/model` in diffusers layout, as a user has one, and a CLIP and a RAFT of random
weights beside it, so that a shipped recipe can be played on them (docs/speed.md says how).
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, cast

import diffusers
import torch
import transformers
from torch import nn

from data.errors import ConfigError
from models.families.ltx import DEFAULT_FRAME_RATE, Positions

TOKENIZER: Final = Path(__file__).resolve().parent.parent / "miniature/weights/wan/tokenizer"
# Of the spread that keeps the variance of a layer's output at that of its input.
_GAIN: Final = 0.8
# Wan's and LTX's gates start near 0; trained ones do not stay there.
_GATE: Final = 0.5

_WAN: Final = {
    "patch_size": (1, 2, 2), "attention_head_dim": 128, "in_channels": 16, "out_channels": 16,
    "text_dim": 4096, "freq_dim": 256, "cross_attn_norm": True, "qk_norm": "rms_norm_across_heads",
    "eps": 1e-6, "rope_max_seq_len": 1024,
}  # fmt: skip
_TINY_WAN: Final = {
    **_WAN, "num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 2, "ffn_dim": 32,
    "text_dim": 32, "freq_dim": 32, "rope_max_seq_len": 64,
}  # fmt: skip
_TINY_WAN_VAE: Final = {"base_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}
_WAN_5B_VAE: Final = {
    "base_dim": 160, "decoder_base_dim": 256, "z_dim": 48, "in_channels": 12, "out_channels": 12,
    "patch_size": 2, "is_residual": True, "scale_factor_spatial": 16, "latents_mean": [0.0] * 48,
    "latents_std": [1.0] * 48,
}  # fmt: skip
_T5_XXL: Final = {
    "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64,
    "feed_forward_proj": "gated-gelu", "dropout_rate": 0.0,
}  # fmt: skip
_UMT5_XXL: Final = {"vocab_size": 256384, **_T5_XXL}
_TINY_T5: Final = {**_T5_XXL, "vocab_size": 128, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2,
                   "num_heads": 4}  # fmt: skip
# https://huggingface.co/Wan-AI/Wan2.1-T2V-1.3B-Diffusers: the 480p release samples with a shift of 3.
_UNIPC: Final = {
    "prediction_type": "flow_prediction", "use_flow_sigmas": True, "num_train_timesteps": 1000,
}  # fmt: skip
# With it a Wan pipeline has two networks of one configuration.
_BOUNDARY: Final = 0.875
_COGVIDEOX_VAE: Final = {
    "block_out_channels": (128, 256, 256, 512), "latent_channels": 16, "layers_per_block": 3,
    "down_block_types": ("CogVideoXDownBlock3D",) * 4, "up_block_types": ("CogVideoXUpBlock3D",) * 4,
}  # fmt: skip
_COGVIDEOX_DDIM: Final = {
    "prediction_type": "v_prediction", "beta_schedule": "scaled_linear", "beta_start": 0.00085,
    "beta_end": 0.012, "rescale_betas_zero_snr": True, "set_alpha_to_one": True,
    "timestep_spacing": "trailing",
}  # fmt: skip


@dataclass(frozen=True)
class Size:
    """The configurations of one published model.

    Attributes:
        family: of the diffusers classes ("wan" for Wan2.2 too, whatever recipes call it).
        transformer, vae, text_encoder, scheduler: keyword arguments of the parts' constructors or configs.
        pipeline: keyword arguments of the pipeline beyond its parts.
    """

    family: str
    transformer: Mapping[str, Any]
    vae: Mapping[str, Any] = field(default_factory=dict)
    text_encoder: Mapping[str, Any] = field(default_factory=dict)
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    pipeline: Mapping[str, Any] = field(default_factory=dict)


def _wan(heads: int, layers: int, width: int, shift: float, channels: int = 16, **pipeline: Any) -> Size:
    network = {
        **_WAN, "num_attention_heads": heads, "num_layers": layers, "ffn_dim": width,
        "in_channels": channels, "out_channels": channels,
    }  # fmt: skip
    scheduler = {**_UNIPC, "flow_shift": shift}
    return Size("wan", network, text_encoder=_UMT5_XXL, scheduler=scheduler, pipeline=pipeline)


def _tiny_wan(shift: float, **pipeline: Any) -> Size:
    scheduler = {**_UNIPC, "flow_shift": shift}
    return Size("wan", _TINY_WAN, _TINY_WAN_VAE, _TINY_T5, scheduler, pipeline)


SIZES: Final[Mapping[str, Size]] = {
    "wan-1.3b": _wan(12, 30, 8960, 3.0),
    "wan-14b": _wan(40, 40, 13824, 3.0),
    # Wan-AI/Wan2.2-T2V-A14B-Diffusers: two networks of Wan2.1's; its authors sample with a shift of 12.
    "wan-experts-a14b": _wan(40, 40, 13824, 12.0, boundary_ratio=_BOUNDARY),
    # Wan-AI/Wan2.2-TI2V-5B-Diffusers: a timestep a token, a VAE of stride 16.
    "wan-5b": replace(_wan(24, 30, 14336, 5.0, channels=48, expand_timesteps=True), vae=_WAN_5B_VAE),
    "wan-tiny": _tiny_wan(3.0),
    "wan-experts-tiny": _tiny_wan(12.0, boundary_ratio=_BOUNDARY),
    # zai-org/CogVideoX-2b: the network class's own defaults.
    "cogvideox-2b": Size(
        "cogvideox",
        {},
        vae={**_COGVIDEOX_VAE, "scaling_factor": 1.15258426},
        text_encoder={"vocab_size": 32128, **_T5_XXL},
        scheduler={**_COGVIDEOX_DDIM, "snr_shift_scale": 3.0},
    ),
    "cogvideox-5b": Size(
        "cogvideox",
        {"num_attention_heads": 48, "num_layers": 42, "use_rotary_positional_embeddings": True},
        vae={**_COGVIDEOX_VAE, "scaling_factor": 0.7},
        text_encoder={"vocab_size": 32128, **_T5_XXL},
        scheduler={**_COGVIDEOX_DDIM, "snr_shift_scale": 1.0},
    ),
    "cogvideox-tiny": Size(
        "cogvideox",
        {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2, "text_embed_dim": 32,
         "time_embed_dim": 8, "max_text_seq_length": 16},
        vae={**_COGVIDEOX_VAE, "block_out_channels": (4, 4, 4, 4), "layers_per_block": 1,
             "norm_num_groups": 2},
        text_encoder=_TINY_T5,
        scheduler=_COGVIDEOX_DDIM,
    ),
    "ltx-2b": Size("ltx", {}, text_encoder={"vocab_size": 32128, **_T5_XXL}),
    "ltx-tiny": Size(
        "ltx",
        {"num_attention_heads": 2, "attention_head_dim": 16, "cross_attention_dim": 32, "num_layers": 2,
         "caption_channels": 32},
        vae={"block_out_channels": (4, 4, 4, 4), "decoder_block_out_channels": (4, 4, 4, 4),
             "layers_per_block": (1,) * 5, "decoder_layers_per_block": (1,) * 5},
        text_encoder=_TINY_T5,
    ),
}  # fmt: skip


def size_of(family: str, size: str) -> Size:
    """The configurations of `<family>-<size>`. Raises ConfigError, naming those there are."""
    found = SIZES.get(f"{family}-{size}")
    if found is None:
        raise ConfigError(f"there is no {family}-{size} here (known: {', '.join(sorted(SIZES))})")
    return found


# By family: the classes of transformer, VAE, pipeline and scheduler in diffusers, and of the text encoder.
_KINDS: Final[Mapping[str, tuple[Any, Any, Any, Any, Any, Any]]] = {
    "wan": (
        diffusers.WanTransformer3DModel, diffusers.AutoencoderKLWan, diffusers.WanPipeline,
        diffusers.UniPCMultistepScheduler, transformers.UMT5Config, transformers.UMT5EncoderModel,
    ),
    "cogvideox": (
        diffusers.CogVideoXTransformer3DModel, diffusers.AutoencoderKLCogVideoX, diffusers.CogVideoXPipeline,
        diffusers.CogVideoXDDIMScheduler, transformers.T5Config, transformers.T5EncoderModel,
    ),
    "ltx": (
        diffusers.LTXVideoTransformer3DModel, diffusers.AutoencoderKLLTXVideo, diffusers.LTXPipeline,
        diffusers.FlowMatchEulerDiscreteScheduler, transformers.T5Config, transformers.T5EncoderModel,
    ),
}  # fmt: skip


def build_transformer(
    family: str, size: str, device: str, dtype: torch.dtype = torch.bfloat16, seed: int = 0
) -> nn.Module:
    """The denoising network, frozen, in eval mode, with the parts in float32 that diffusers keeps so."""
    found = size_of(family, size)
    kind, _, _, scheduler, *_ = _KINDS[found.family]
    network = _made(kind, found.transformer, device, dtype, seed, redraw=True)
    if found.family == "cogvideox":
        # What a family's loading puts on the network beside its weights.
        levels = (1 - scheduler(**found.scheduler).alphas_cumprod.double()).sqrt().to(device)
        network.register_buffer("noise_levels", levels, persistent=False)
    return network


def build_vae(
    family: str, size: str, device: str, dtype: torch.dtype = torch.bfloat16, seed: int = 1
) -> nn.Module:
    """The video autoencoder; its start values are the library's own."""
    found = size_of(family, size)
    return _made(_KINDS[found.family][1], found.vae, device, dtype, seed)


def build_text_encoder(
    family: str, size: str, device: str, dtype: torch.dtype = torch.bfloat16, seed: int = 2
) -> nn.Module:
    """UMT5-XXL or T5-v1.1-XXL, encoder only: 5.7 or 4.8 billion parameters."""
    found = size_of(family, size)
    *_, config, kind = _KINDS[found.family]
    torch.manual_seed(seed)
    with torch.device(device):
        module = kind(config(**found.text_encoder))
    return cast(nn.Module, module.to(dtype).eval().requires_grad_(False))


def build_pipeline(
    family: str,
    size: str,
    device: str,
    dtype: torch.dtype = torch.bfloat16,
    vae_dtype: torch.dtype | None = None,
    *,
    text: bool = True,
) -> Any:
    """The whole diffusers pipeline on `device`.

    Args:
        family, size: a name of `SIZES`, split at a dash.
        device: "cpu", "cuda" or "cuda:1".
        dtype: of transformer and text encoder.
        vae_dtype: of the VAE; None takes `dtype`.
        text: with its text encoder; without, it takes embeddings only.

    Raises:
        ConfigError: there is no such size.
    """
    found = size_of(family, size)
    _, _, kind, scheduler, *_ = _KINDS[found.family]
    parts = {"transformer": build_transformer(family, size, device, dtype)}
    if "boundary_ratio" in found.pipeline:  # a second network, for low noise
        parts["transformer_2"] = build_transformer(family, size, device, dtype, seed=3)
    pipeline: Any = kind(
        tokenizer=transformers.AutoTokenizer.from_pretrained(TOKENIZER),
        text_encoder=build_text_encoder(family, size, device, dtype) if text else None,
        vae=build_vae(family, size, device, vae_dtype or dtype),
        scheduler=scheduler(**found.scheduler),
        **parts,
        **found.pipeline,
    )
    pipeline.set_progress_bar_config(disable=True)
    if found.family == "ltx":
        stride = pipeline.vae_temporal_compression_ratio, pipeline.vae_spatial_compression_ratio
        pipeline.transformer.positions = Positions(DEFAULT_FRAME_RATE, *stride)
    return pipeline


def with_dtype(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy of `module` with all its weights in `dtype`."""
    other = copy.deepcopy(module)
    for parameter in other.parameters():
        parameter.data = parameter.data.to(dtype)
    return other


def parameters(module: nn.Module) -> int:
    """How many numbers the weights are."""
    return sum(parameter.numel() for parameter in module.parameters())


def _made(
    kind: Any, config: Mapping[str, Any], device: str, dtype: torch.dtype, seed: int, redraw: bool = False
) -> nn.Module:
    # On the device from the start: a host copy of 14 billion weights would take a minute to make and move.
    torch.manual_seed(seed)
    with torch.device(device):
        module = cast(nn.Module, kind(**config))
    if redraw:
        _draw(module)
    # As `from_pretrained(torch_dtype=...)` does, and `to(dtype)` does not.
    kept = set(kind._keep_in_fp32_modules or ())
    for name, parameter in module.named_parameters():
        if not kept & set(name.split(".")):
            parameter.data = parameter.data.to(dtype)
    return module.eval().requires_grad_(False)


@torch.no_grad()
def _draw(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d | nn.Conv3d):
            fan_in = part.weight[0].numel()
            part.weight.normal_(0, _GAIN / fan_in**0.5)
            if part.bias is not None:
                part.bias.zero_()
    for name, parameter in module.named_parameters():
        if name.endswith("scale_shift_table"):
            parameter.normal_(0, _GATE)


def main(arguments: list[str] | None = None) -> None:
    """See the module's docstring."""
    from benchmarks.scoring import save_networks

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", default="wan")
    parser.add_argument("--size", default="1.3b")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args(arguments)
    save_networks(asked.out / "clip", asked.out / "flow")
    pipeline = build_pipeline(asked.family, asked.size, asked.device)
    pipeline.save_pretrained(asked.out / "model", safe_serialization=True)


if __name__ == "__main__":
    main()
