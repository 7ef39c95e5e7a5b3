"""Measures saved miniature weights with the world's oracle.

Everything is measured on the very files that ship (16-bit weights, loaded in float32).
"""

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import WanPipeline
from torch import Tensor

from miniature.train.architecture import MAX_WORDS
from miniature.train.vae import decode, encode
from miniature.world.corpus import sample_corpus, verdicts
from miniature.world.prompts import prompt_set
from miniature.world.render import render


@dataclass(frozen=True)
class Sampling:
    """How clips are sampled when a base is measured; the defaults are those of `recipes/mini.yaml`."""

    steps: int = 6
    guidance: float = 1.0
    frames: int = 17
    size: int = 64


def load(folder: Path | str, device: str) -> WanPipeline:
    """The saved pipeline in float32 on `device`, without its progress bar."""
    pipe = WanPipeline.from_pretrained(folder, dtype=torch.float32).to(device)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@torch.no_grad()
def sample(
    pipe: WanPipeline, captions: Sequence[str], sampling: Sampling, seed: int, batch: int = 512
) -> Tensor:
    """Captions -> uint8 clips [N, T, H, W, 3] on the CPU."""
    out = []
    generator = torch.Generator("cpu").manual_seed(seed)
    for start in range(0, len(captions), batch):
        latents = pipe(
            prompt=list(captions[start : start + batch]),
            height=sampling.size,
            width=sampling.size,
            num_frames=sampling.frames,
            num_inference_steps=sampling.steps,
            guidance_scale=sampling.guidance,
            max_sequence_length=MAX_WORDS,
            generator=generator,
            output_type="latent",
        ).frames
        # The pipeline returns latents as the transformer knows them, normalised.
        out.append(decode(pipe.vae, latents.float()).cpu())
    return torch.cat(out)


def success(
    clips: Tensor, captions: Sequence[str], pool: Executor | None, **groups: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Shares of clips (uint8 [N, T, H, W, 3]) that the oracle passes, by each of `groups`, and over all."""
    passed = np.array([verdict.passed for verdict in verdicts(clips.numpy(), captions, pool)])
    return {
        kind: {name: round(float(passed[np.array(names) == name].mean()), 4) for name in sorted(set(names))}
        for kind, names in {"all": ["all"] * len(captions), **groups}.items()
    }


def measure_base(
    pipe: WanPipeline, split: str, count: int, sampling: Sampling, seed: int, pool: Executor | None
) -> dict[str, dict[str, float]]:
    """Oracle success of about `count` samples over the prompts of `split`."""
    prompts = prompt_set(split)
    prompts *= max(1, round(count / len(prompts)))
    captions = [prompt.text for prompt in prompts]
    clips = sample(pipe, captions, sampling, seed)
    by = {"category": [p.category for p in prompts], "template": [p.template for p in prompts]}
    return success(clips, captions, pool, **by)


def measure_round_trip(pipe: WanPipeline, count: int, seed: int, pool: Executor | None) -> dict[str, float]:
    """Share of lawful rendered clips that still pass the oracle after encoding and decoding, by template."""
    scenes = sample_corpus(count, 0.0, seed)
    rebuilt = decode(pipe.vae, encode(pipe.vae, render(scenes, 64, pipe.vae.device))).cpu()
    captions = [scene.caption for scene in scenes]
    found = success(rebuilt, captions, pool, template=[scene.template for scene in scenes])
    return found["all"] | found["template"]


def measure(
    folder: Path, device: str, count: int, sampling: Sampling, seed: int, pool: Executor | None
) -> dict[str, dict[str, float]]:
    """All figures of the card, each over about `count` clips (half of it for the unseen templates)."""
    pipe = load(folder, device)
    heldout = measure_base(pipe, "heldout", count, sampling, seed, pool)
    unseen = measure_base(pipe, "unseen", count // 2, sampling, seed, pool)
    return {
        "VAE round trip of lawful clips, oracle success": measure_round_trip(pipe, count, seed, pool),
        "held-out prompts, oracle success": heldout["all"] | heldout["category"],
        "held-out prompts by template": heldout["template"],
        "unseen templates": unseen["all"] | unseen["template"],
    }
