"""A tiny pipeline that draws the empty world, so that nobody need guess what training it far away does.

A random network draws noise before and after any training, and whether the noise after is the sharper one is
a matter of luck and of the processor's rounding. This one has learned to take all noise away, and the
miniature's own VAE shows what is left as a flat picture: whatever throws it off course leaves noise in, and
the clips are sharper for it (2.8 to 55 times, six seeds at each of two learning rates).
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_round import ROOT, build_tiny_wan


def build_calm_wan(folder: Path) -> None:
    """Save a WanPipeline whose transformer predicts the very noise that it is given (1 to 2 s of training)."""
    import torch
    from diffusers import WanTransformer3DModel

    build_tiny_wan(folder)
    shutil.rmtree(folder / "vae")
    shutil.copytree(ROOT / "miniature/weights/wan/vae", folder / "vae")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        # 72 wide: a patch has 64 numbers, and none may be lost.
        network: Any = WanTransformer3DModel(
            patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=36, in_channels=16,
            out_channels=16, text_dim=32, freq_dim=64, ffn_dim=32, num_layers=1, rope_max_seq_len=32,
        )  # fmt: skip
        optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
        for _ in range(300):
            noise, sigma = torch.randn(8, 16, 5, 4, 4), torch.empty(8).uniform_(0.1, 1.0)
            predicted = network(
                hidden_states=sigma.view(-1, 1, 1, 1, 1) * noise,
                timestep=sigma * 1000,
                encoder_hidden_states=torch.randn(8, 16, 32),
                return_dict=False,
            )[0]
            loss = (predicted - noise).square().mean()  # of rectified flow, where x0 is 0
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    network.save_pretrained(folder / "transformer")


@pytest.fixture(scope="session")
def calm_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calm") / "wan"
    build_calm_wan(folder)
    return folder
