"""Trains the miniature's transformer and text encoder by flow matching (Lipman et al., arXiv 2210.02747).

    x_sigma = (1 - sigma) x0 + sigma eps,   v = eps - x0,   loss = mean (v_theta(x_sigma, sigma, c) - v)^2

sigma is logit-normal (Esser et al., arXiv 2403.03206). One caption in ten is emptied, so that the model can
be sampled with classifier-free guidance; the weights kept are an exponential moving average.
"""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

from models.mini.architecture import MAX_WORDS


@dataclass(frozen=True)
class DenoiserSettings:
    """How the transformer is trained. Training ends after `seconds` or `steps`, whichever comes first."""

    seconds: float = 330.0
    steps: int = 1_000_000
    batch_size: int = 1024
    learning_rate: float = 1.5e-3
    warmup: int = 300
    weight_decay: float = 0.01
    caption_dropout: float = 0.1
    ema: float = 0.999
    compile: str | None = "default"
    """`torch.compile` mode of the transformer ("default", "reduce-overhead"), or None."""


class Denoiser(nn.Module):
    """Transformer and text encoder as one module: text is encoded just as `WanPipeline` encodes it."""

    def __init__(self, transformer: WanTransformer3DModel, text_encoder: UMT5EncoderModel) -> None:
        super().__init__()
        self.transformer = transformer
        self.text_encoder = text_encoder

    def encode_text(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Token ids and mask [B, L] -> embeddings [B, L, D], zero behind the end of the text."""
        embeds: Tensor = self.text_encoder(tokens, mask).last_hidden_state
        return embeds * mask.unsqueeze(-1)

    def forward(self, x: Tensor, sigma: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Noisy latents [B, C, F, h, w] at sigma [B] -> velocity of the same shape."""
        text = self.encode_text(tokens, mask)
        velocity: Tensor = self.transformer(x, sigma * 1000.0, text, return_dict=False)[0]
        return velocity


def tokenize(tokenizer: PreTrainedTokenizerFast, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Captions -> token ids and mask, int64 [N, MAX_WORDS]."""
    out = tokenizer(
        list(captions), padding="max_length", max_length=MAX_WORDS, truncation=True, return_tensors="pt"
    )
    return out.input_ids, out.attention_mask


def flow_matching_loss(
    predict: Callable[..., Tensor], latents: Tensor, tokens: Tensor, mask: Tensor
) -> Tensor:
    """Mean squared error of the velocity at a random sigma for latents [B, C, F, h, w]."""
    sigma = torch.sigmoid(torch.randn(len(latents), device=latents.device))
    noise = torch.randn_like(latents)
    s = sigma.view(-1, 1, 1, 1, 1)
    velocity = predict((1 - s) * latents + s * noise, sigma, tokens, mask)
    return (velocity.float() - (noise - latents)).square().mean()


def train_denoiser(
    model: Denoiser,
    tokenizer: PreTrainedTokenizerFast,
    latents: Tensor,
    captions: Sequence[str],
    settings: DenoiserSettings,
    seed: int,
    say: Callable[[str], None] = print,
    probe: Callable[[Denoiser], Any] | None = None,
    probe_every: float = 60.0,
) -> Denoiser:
    """Trains on normalised `latents` [N, C, F, h, w] of `captions`; returns the weights' moving average.

    `probe`, if given, is shown the moving average every `probe_every` seconds (its time is not counted).
    """
    device = latents.device
    torch.manual_seed(seed)
    model = model.to(device).train()
    average = copy.deepcopy(model).eval().requires_grad_(False)
    tokens, mask = (t.to(device) for t in tokenize(tokenizer, captions))
    no_tokens, no_mask = (t.to(device) for t in tokenize(tokenizer, [""]))
    on_gpu = device.type == "cuda"
    if settings.compile:
        # A part that the compiler cannot take runs as it is: slower, never wrong.
        torch._dynamo.config.suppress_errors = True
        model.transformer.compile(mode=settings.compile)
        model.text_encoder.compile()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=on_gpu
    )
    started, paused, step, shown, probed = time.monotonic(), 0.0, 0, 0.0, 0.0
    while True:
        elapsed = time.monotonic() - started - paused
        progress = max(elapsed / settings.seconds, step / settings.steps)
        if progress >= 1.0:
            break
        for group in optimizer.param_groups:
            group["lr"] = (
                settings.learning_rate * min(1.0, (step + 1) / settings.warmup) * max(0.02, 1 - progress)
            )
        rows = torch.randint(len(latents), (settings.batch_size,), device=device)
        empty = torch.rand(settings.batch_size, 1, device=device) < settings.caption_dropout
        batch_tokens = torch.where(empty, no_tokens, tokens[rows])
        batch_mask = torch.where(empty, no_mask, mask[rows])
        with torch.autocast(device.type, torch.bfloat16, enabled=on_gpu):
            loss = flow_matching_loss(model, latents[rows].float(), batch_tokens, batch_mask)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step == 1:
            # The first step compiles: its minute is not training time.
            paused = time.monotonic() - started
        decay = min(settings.ema, 1 - 1 / (step / 10 + 1))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
        if elapsed - shown >= 20 or step == 1:
            shown = elapsed
            say(f"denoiser {elapsed:4.0f} s  step {step}  loss {loss.item():.4f}")
        if probe is not None and elapsed - probed >= probe_every:
            before = time.monotonic()
            say(f"denoiser {elapsed:4.0f} s  probe {probe(average)}")
            probed, paused = elapsed, paused + time.monotonic() - before
    say(f"denoiser trained: {step} steps")
    return average
