"""Diffusion-DPO with LoRA as a training script is usually written: the side that ours is measured against.

Text encoder and VAE stay on the GPU and encode text and video in the loop, the reference is the same network
with its adapter switched off, run beside the policy at every step; eager mode, gradient checkpointing on
every block, PyTorch's default attention. The draws, the start of the adapter and the learning rate are those
of ours, so that the two loss curves can be laid on each other.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.full_size import TOKENIZER, build_text_encoder, build_vae
from benchmarks.training_parts import Shape, Timed, network, peak, release
from models import lora
from models.families.wan import Wan
from models.settings import FinetuneSettings
from models.training import noise, objectives
from models.training.batches import Batches
from models.training.step import learning_rate
from models.training.train_data import TrainData

Encode = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Rows of the clips of a batch -> x0 [b, C, T, H, W] float32 and embeddings [b, L, D]."""


class Encoders:
    """The text encoder (bfloat16) and the VAE (float32) of Wan2.1, random, and videos to encode with them.

    Args:
        count: videos, uint8 noise smoothed over 8 x 8 pixels; two of each prompt.
    """

    def __init__(self, shape: Shape, count: int, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        from transformers import AutoTokenizer

        self.shape, self.device = shape, device
        self.vae: Any = build_vae("wan", shape.size, str(device), torch.float32)
        self.text: Any = build_text_encoder("wan", shape.size, str(device), dtype)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(TOKENIZER)
        generator = torch.Generator().manual_seed(seed)
        coarse = torch.randint(
            0, 256, (count, 3, shape.frames, shape.height // 8, shape.width // 8),
            generator=generator, dtype=torch.uint8,
        )  # fmt: skip
        self.videos = coarse.repeat_interleave(8, 3).repeat_interleave(8, 4)
        self.prompts = [f"a red ball falls down {'slowly ' * (i % 7)}" for i in range(count // 2)]

    @torch.no_grad()
    def latents(self, rows: Tensor) -> Tensor:
        """Normalised latents of videos, one after the other: together they would need twice the memory."""
        config = self.vae.config
        mean = torch.tensor(config.latents_mean, device=self.device).view(1, -1, 1, 1, 1)
        std = torch.tensor(config.latents_std, device=self.device).view(1, -1, 1, 1, 1)
        found = []
        for row in rows.tolist():
            video = self.videos[row][None].to(self.device).float() / 127.5 - 1
            found.append((self.vae.encode(video).latent_dist.mode() - mean) / std)
        return torch.cat(found)

    @torch.no_grad()
    def embeds(self, prompts: Tensor) -> Tensor:
        """Embeddings of prompts [n], padded with zeros to the shape's length."""
        asked = [self.prompts[row] for row in prompts.tolist()]
        ids = self.tokenizer(
            asked,
            padding="max_length",
            truncation=True,
            max_length=self.shape.text_length,
            return_tensors="pt",
        )
        mask = ids.attention_mask.to(self.device)
        embeds: Tensor = self.text(ids.input_ids.to(self.device), mask).last_hidden_state
        padded: Tensor = embeds * mask[..., None]
        return padded

    def __call__(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """See `Encode`: clips 2 i and 2 i + 1 are of prompt i, which is encoded once."""
        embeds = self.embeds(rows[: len(rows) // 2] // 2)
        return self.latents(rows), torch.cat([embeds, embeds])


def plain(
    data: TrainData,
    shape: Shape,
    settings: FinetuneSettings,
    device: torch.device,
    dtype: torch.dtype,
    encode: Encode,
    *,
    otherwise: bool = False,
    until: float | None = None,
) -> Timed:
    """Train for `settings.steps` steps of one pair each.

    Args:
        data: names the clips, prompts and pairs; its latents are read only to know their shape.
        encode: where x0 and the embeddings come from.
        otherwise: the same arithmetic rounded otherwise, attention by another kernel of the same precision.
            Shows what rounding alone does to the curve.
        until: of `time.monotonic()`, after which no further step is begun.
    """
    release(device)
    transformer: Any = network(shape, device, dtype)
    spec = lora.LoraSpec(settings.rank, settings.alpha, Wan.lora_targets)
    adapter = lora.attach(transformer, spec, noise.seed_of(settings.seed, "adapter"))
    parameters = list(adapter.parameters().values())
    transformer.enable_gradient_checkpointing()
    optimizer = torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay)
    batches = Batches(data, settings, device)
    path = Wan.parameterization
    timed = Timed()
    del data

    def predict(noisy: Tensor, sigma: Tensor, embeds: Tensor) -> Tensor:
        with torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext():
            return _ask(transformer, noisy, sigma, embeds)

    with _kernels(otherwise and device.type == "cuda"):
        for step in range(settings.steps):
            if until is not None and time.monotonic() > until and timed.losses:
                break
            start = time.perf_counter()
            rows = batches.at(step).halves()
            x0, embeds = encode(rows.clips[:, 0])
            noisy, target = path.noisy(x0, rows.noise, rows.sigma), path.target(x0, rows.noise, rows.sigma)
            with torch.no_grad(), adapter.disabled():
                reference = objectives.error(predict(noisy, rows.sigma, embeds), target)
            policy = objectives.error(predict(noisy, rows.sigma, embeds), target)
            gap = (policy - reference).view(2, -1)
            loss = -F.logsigmoid(-settings.beta / 2 * (gap[0] - gap[1])).mean()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(settings, step)
            optimizer.step()
            optimizer.zero_grad()
            timed.losses.append(loss.item())
            timed.seconds.append(time.perf_counter() - start)
    timed.peak_bytes = peak(device)
    return timed


def _kernels(otherwise: bool) -> AbstractContextManager[Any]:
    """PyTorch's own choice of attention kernel, or another one."""
    return sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]) if otherwise else nullcontext()


def _ask(transformer: Any, noisy: Tensor, sigma: Tensor, embeds: Tensor) -> Tensor:
    prediction: Tensor = transformer(
        hidden_states=noisy.to(transformer.dtype),
        timestep=sigma * 1000,
        encoder_hidden_states=embeds.to(transformer.dtype),
        return_dict=False,
    )[0]
    return prediction.float()
