"""One pass over all frames gives what diffusers gives chunk by chunk."""

import pytest
import torch
from diffusers import AutoencoderKLWan

from miniature.train.full_sequence import decode, encode_moments

# Sums in another order, in float32: a thousandth of the 8-bit step that frames are rounded to.
TOLERANCE = 1e-5


def _vae(**changes):
    torch.manual_seed(0)
    settings = {"base_dim": 8, "z_dim": 4, "dim_mult": [1, 2, 2], "num_res_blocks": 1}
    settings |= {"latents_mean": [0.0] * 4, "latents_std": [1.0] * 4} | changes
    return AutoencoderKLWan(**settings).eval().requires_grad_(False)


VAES = {
    "two temporal halvings": {"temperal_downsample": [True, True]},
    "the later one temporal": {"temperal_downsample": [False, True]},
    "folded pixels": {
        "dim_mult": [1, 2],
        "temperal_downsample": [True],
        "in_channels": 12,
        "out_channels": 12,
        "patch_size": 2,
    },
}


@pytest.mark.parametrize("changes", VAES.values(), ids=VAES)
@pytest.mark.parametrize("frames", [1, 5, 17])
def test_it_equals_the_chunked_methods(changes, frames):
    vae = _vae(**changes)
    clips = torch.rand(2, 3, frames, 32, 32) * 2 - 1
    chunked = vae.encode(clips).latent_dist
    moments = encode_moments(vae, clips)
    torch.testing.assert_close(moments, chunked.parameters, atol=TOLERANCE, rtol=0)
    latents = chunked.mean
    torch.testing.assert_close(decode(vae, latents), vae.decode(latents).sample, atol=TOLERANCE, rtol=0)
