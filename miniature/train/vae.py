"""Trains the miniature's video VAE on rendered clips."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor

from miniature.train import full_sequence
from miniature.train.architecture import LATENT_CHANNELS, build_vae
from miniature.train.training import fit


@dataclass(frozen=True)
class VaeSettings:
    """How the VAE is trained. Training ends after `seconds` or `steps`, whichever comes first."""

    decoder_width: int = 32
    seconds: float = 360.0
    steps: int = 1_000_000
    batch_size: int = 128
    learning_rate: float = 3e-3
    warmup: int = 50
    foreground_weight: float = 8.0
    """Extra weight of coloured pixels: objects cover a tenth of the frame and are all that matters."""
    motion_weight: float = 0.5
    """Weight of the error in frame differences: flicker is invisible to a per-frame loss."""
    kl_weight: float = 1e-6
    compile: bool = True


def to_unit(clips: Tensor) -> Tensor:
    """uint8 [B, T, H, W, 3] -> float32 [B, 3, T, H, W] in [-1, 1], the VAE's layout."""
    return clips.permute(0, 4, 1, 2, 3).float() / 127.5 - 1.0


def reconstruction_loss(reconstruction: Tensor, clips: Tensor, settings: VaeSettings) -> Tensor:
    """Weighted squared and absolute error of [B, 3, T, H, W] clips, plus that of their motion."""
    coloured = (clips.amax(1, keepdim=True) - clips.amin(1, keepdim=True) > 0.3).float()
    error = reconstruction - clips
    weight = 1.0 + settings.foreground_weight * coloured
    pixels = (weight * (error.square() + 0.1 * error.abs())).mean()
    motion = (error[:, :, 1:] - error[:, :, :-1]).square().mean()
    return pixels + settings.motion_weight * motion


def train_vae(
    clips: Tensor,
    settings: VaeSettings,
    seed: int,
    say: Callable[[str], None] = print,
    start: AutoencoderKLWan | None = None,
) -> AutoencoderKLWan:
    """Trains a VAE, a new one or `start`, on `clips` (uint8 [N, T, H, W, 3], on the device to train on).

    Returns it in evaluation mode, with `latents_mean` and `latents_std` (per channel) set in its config.
    """
    device = clips.device
    torch.manual_seed(seed)
    vae = start if start is not None else build_vae(decoder_width=settings.decoder_width)
    vae = vae.to(device, torch.float32)
    encode_moments, decode_latents = full_sequence.encode_moments, full_sequence.decode
    if settings.compile:
        encode_moments, decode_latents = torch.compile(encode_moments), torch.compile(decode_latents)

    def loss_of_batch() -> Tensor:
        batch = to_unit(clips[torch.randint(len(clips), (settings.batch_size,), device=device)])
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            posterior = DiagonalGaussianDistribution(encode_moments(vae, batch))
            reconstruction = decode_latents(vae, posterior.sample())
        spread: Tensor = posterior.kl().float().mean()
        return reconstruction_loss(reconstruction.float(), batch, settings) + settings.kl_weight * spread

    def rate(step: int, used: float) -> float:
        return settings.learning_rate * min(1.0, (step + 1) / settings.warmup) * max(0.02, 1 - used)

    fit(vae, loss_of_batch, rate, settings.seconds, settings.steps, weight_decay=0.0, say=say)
    vae.eval().requires_grad_(False)
    normalise(vae, clips[: 64 * settings.batch_size])
    return vae


def normalise(vae: AutoencoderKLWan, clips: Tensor) -> None:
    """Sets the latents' mean and standard deviation per channel, measured on `clips`, in the VAE's config."""
    latents = encode(vae, clips, normalised=False)
    vae.register_to_config(
        latents_mean=latents.mean((0, 2, 3, 4)).tolist(), latents_std=latents.std((0, 2, 3, 4)).tolist()
    )


def _statistics(vae: AutoencoderKLWan, device: torch.device) -> tuple[Tensor, Tensor]:
    shape = (1, LATENT_CHANNELS, 1, 1, 1)
    mean = torch.tensor(vae.config["latents_mean"], device=device).view(shape)
    std = torch.tensor(vae.config["latents_std"], device=device).view(shape)
    return mean, std


@torch.no_grad()
def encode(vae: AutoencoderKLWan, clips: Tensor, normalised: bool = True, chunk: int = 256) -> Tensor:
    """uint8 [N, T, H, W, 3] -> float32 latents [N, 16, F, h, w]; `normalised` for the transformer."""
    out = []
    for batch in clips.split(chunk):
        with torch.autocast(clips.device.type, torch.bfloat16, enabled=clips.device.type == "cuda"):
            out.append(full_sequence.encode_moments(vae, to_unit(batch))[:, :LATENT_CHANNELS].float())
    latents = torch.cat(out)
    if not normalised:
        return latents
    mean, std = _statistics(vae, clips.device)
    return (latents - mean) / std


@torch.no_grad()
def decode(vae: AutoencoderKLWan, latents: Tensor, chunk: int = 256) -> Tensor:
    """Normalised latents [N, 16, F, h, w] -> uint8 clips [N, T, H, W, 3]."""
    mean, std = _statistics(vae, latents.device)
    out = []
    for batch in latents.split(chunk):
        with torch.autocast(latents.device.type, torch.bfloat16, enabled=latents.device.type == "cuda"):
            pixels = full_sequence.decode(vae, batch * std + mean)
        out.append(((pixels.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 4, 1))
    return torch.cat(out)
