"""`AutoencoderKLWan` over all frames at once instead of frame by frame.

diffusers encodes four frames and decodes one latent frame at a time, with a cache of the last two frames
before every causal convolution: little memory, many small operations. Where memory is no concern the same
numbers come from one pass: a causal convolution over the whole clip sees just what the cache would have held.
Only the two layers that change the frame rate treat the first frame apart; they are written out here.

`encode_moments` and `decode` equal the chunked methods up to the order of floating-point sums
(tests/miniature/train/test_full_sequence.py states the tolerance). They hold no state, so threads may share
one VAE.
"""

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanResample, patchify, unpatchify
from torch import Tensor


def _resample(layer: WanResample, x: Tensor) -> Tensor:
    """One change of resolution of [B, C, T, H, W]; a change of frame rate leaves out the first frame."""
    moving = x.shape[2] > 1
    if layer.mode == "upsample3d" and moving:
        first, rest = x[:, :, :1], layer.time_conv(x[:, :, 1:])
        b, _, t, h, w = rest.shape
        # The convolution yields both frames of a pair as two halves of the channels.
        rest = rest.reshape(b, 2, -1, t, h, w).permute(0, 2, 3, 1, 4, 5).reshape(b, -1, 2 * t, h, w)
        x = torch.cat([first, rest], dim=2)
    b, c, t, h, w = x.shape
    x = layer.resample(x.permute(0, 2, 1, 3, 4).reshape(b * t, c, h, w))
    x = x.view(b, t, *x.shape[1:]).permute(0, 2, 1, 3, 4)
    if layer.mode == "downsample3d" and moving:
        x = torch.cat([x[:, :, :1], layer.time_conv(x)], dim=2)
    return x


def encode_moments(vae: AutoencoderKLWan, clips: Tensor) -> Tensor:
    """Clips [B, 3, 1+4k, H, W] in [-1, 1] -> mean and log-variance of the latents, [B, 2z, F, h, w]."""
    encoder = vae.encoder
    x = clips if vae.config["patch_size"] is None else patchify(clips, patch_size=vae.config["patch_size"])
    x = encoder.conv_in(x)
    for layer in encoder.down_blocks:
        x = _resample(layer, x) if isinstance(layer, WanResample) else layer(x)
    x = encoder.mid_block(x)
    x = encoder.conv_out(encoder.nonlinearity(encoder.norm_out(x)))
    moments: Tensor = vae.quant_conv(x)
    return moments


def decode(vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """Latents [B, z, F, h, w], no longer normalised -> clips [B, 3, T, H, W], clamped to [-1, 1]."""
    decoder = vae.decoder
    x = decoder.mid_block(decoder.conv_in(vae.post_quant_conv(latents)))
    for block in decoder.up_blocks:
        for resnet in block.resnets:
            x = resnet(x)
        if block.upsamplers is not None:
            x = _resample(block.upsamplers[0], x)
    x = decoder.conv_out(decoder.nonlinearity(decoder.norm_out(x)))
    if vae.config["patch_size"] is not None:
        x = unpatchify(x, patch_size=vae.config["patch_size"])
    clips: Tensor = x.clamp(-1.0, 1.0)
    return clips
