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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import diffusers
import torch
import transformers
import yaml
from torch import nn

from data.errors import ConfigError
from models.families.ltx import DEFAULT_FRAME_RATE, position_facts

TOKENIZER: Final = Path(__file__).resolve().parent.parent / "miniature/weights/wan/tokenizer"
# Of the spread that keeps the variance of a layer's output at that of its input.
_GAIN: Final = 0.8
# Wan's and LTX's gates start near 0; trained ones do not stay there.
_GATE: Final = 0.5


@dataclass(frozen=True)
class Size:
    """One model of `sizes.yaml`, which says what each part means; `family` is "wan" for Wan2.2 too."""

    family: str
    transformer: Mapping[str, Any] = field(default_factory=dict)
    vae: Mapping[str, Any] = field(default_factory=dict)
    text_encoder: Mapping[str, Any] = field(default_factory=dict)
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    pipeline: Mapping[str, Any] = field(default_factory=dict)

    def kind(self, part: str) -> Any:
        """The class of a part, as its library has it."""
        name = _DATA["families"][self.family][part]
        return getattr(transformers if part.startswith("text") else diffusers, name)


_DATA: Final = yaml.safe_load(Path(__file__).with_name("sizes.yaml").read_text(encoding="utf-8"))
SIZES: Final = {name: Size(**parts) for name, parts in _DATA["sizes"].items()}


def size_of(family: str, size: str) -> Size:
    """The configurations of `<family>-<size>`. Raises ConfigError, naming those there are."""
    found = SIZES.get(f"{family}-{size}")
    if found is None:
        raise ConfigError(f"there is no {family}-{size} here (known: {', '.join(sorted(SIZES))})")
    return found


def build_transformer(
    family: str, size: str, device: str, dtype: torch.dtype = torch.bfloat16, seed: int = 0
) -> nn.Module:
    """The denoising network, frozen, in eval mode, with the parts in float32 that diffusers keeps so."""
    found = size_of(family, size)
    network = _made(found.kind("transformer"), found.transformer, device, dtype, seed, redraw=True)
    if found.family == "cogvideox":
        # What a family's loading puts on the network beside its weights.
        scheduler = found.kind("scheduler")(**found.scheduler)
        levels = (1 - scheduler.alphas_cumprod.double()).sqrt().to(device)
        network.register_buffer("noise_levels", levels, persistent=False)
    return network


def build_vae(
    family: str, size: str, device: str, dtype: torch.dtype = torch.bfloat16, seed: int = 1
) -> nn.Module:
    """The video autoencoder; its start values are the library's own."""
    found = size_of(family, size)
    return _made(found.kind("vae"), found.vae, device, dtype, seed)


def build_text_encoder(
    family: str, size: str, device: str, dtype: torch.dtype = torch.bfloat16, seed: int = 2
) -> nn.Module:
    """UMT5-XXL or T5-v1.1-XXL, encoder only: 5.7 or 4.8 billion parameters."""
    found = size_of(family, size)
    config = found.kind("text_config")(**found.text_encoder)
    torch.manual_seed(seed)
    with torch.device(device):
        module = found.kind("text_encoder")(config)
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
    parts = {"transformer": build_transformer(family, size, device, dtype)}
    if "boundary_ratio" in found.pipeline:  # a second network, for low noise
        parts["transformer_2"] = build_transformer(family, size, device, dtype, seed=3)
    pipeline: Any = found.kind("pipeline")(
        tokenizer=transformers.AutoTokenizer.from_pretrained(TOKENIZER),
        text_encoder=build_text_encoder(family, size, device, dtype) if text else None,
        vae=build_vae(family, size, device, vae_dtype or dtype),
        scheduler=found.kind("scheduler")(**found.scheduler),
        **parts,
        **found.pipeline,
    )
    pipeline.set_progress_bar_config(disable=True)
    if found.family == "ltx":
        stride = pipeline.vae_temporal_compression_ratio, pipeline.vae_spatial_compression_ratio
        for name, fact in position_facts(DEFAULT_FRAME_RATE, *stride).items():
            setattr(pipeline.transformer, name, fact)
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
