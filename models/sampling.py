"""Sampling: prompts and seeds to latents and frames, safely from several threads over one set of weights."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.errors import BadInput
from models import lora
from models.families import get_family
from models.families.base import Family, Frames
from models.settings import ModelSettings, SampleSettings
from models.sharing import shell


@dataclass(frozen=True, slots=True)
class Generated:
    """One batch of clips.

    Attributes:
        latents: float32 [B, C, T, H, W] on the CPU, normalised, as the sampler left them.
        embeds: float32 [P, L, D] on the CPU, one row for each different prompt, in order of first appearance.
        embed_rows: B indices into `embeds`.
        frames: uint8 [B, T, H, W, 3].
    """

    latents: Tensor
    embeds: Tensor
    embed_rows: list[int]
    frames: Frames


class Sampler:
    """A model ready to sample. Use one per thread: `fork()` shares the weights and copies what has state.

    diffusers keeps state in the scheduler (step index), the Wan VAE (frame cache), the fast tokenizer
    (padding) and the pipeline object (guidance), so two threads may share none of these.
    """

    def __init__(self, family: Family, pipeline: Any, settings: SampleSettings) -> None:
        self.family = family
        self.settings = settings
        self._source = pipeline  # never sampled from: a fork must not copy state that is in use
        self.pipeline = _private(pipeline, settings.flow_shift)
        self._negative: dict[int, Tensor] = {}

    @classmethod
    def open(
        cls,
        model: ModelSettings,
        settings: SampleSettings,
        adapter: bytes | None = None,
        base_id: str | None = None,
    ) -> Sampler:
        """Load a model, merge `adapter` into its weights if there is one, and make it ready to sample.

        Args:
            adapter: bytes of an adapter made by `models.lora`.
            base_id: identity of the model; an adapter made for another base is then refused.

        Raises:
            BadInput: the model or the adapter cannot be loaded, they do not belong together, or a setting
                does not fit the model.
        """
        family = get_family(model.family)
        pipeline = family.load_pipeline(model)
        _load_linear_algebra(pipeline.transformer.device)
        if adapter is not None:
            lora.merge(pipeline.transformer, adapter, base_id)
        return cls(family, pipeline, settings)

    def fork(self) -> Sampler:
        """A sampler for another thread, over the same weights."""
        return Sampler(self.family, self._source, self.settings)

    @property
    def name(self) -> str:
        """The sampling algorithm, as stored with every clip: the scheduler's class name."""
        return type(self.pipeline.scheduler).__name__

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """[B, L, D] embeddings of `prompts`, encoded as one batch, on the model's device."""
        return self.family.encode_prompts(self.pipeline, prompts, self.settings.max_sequence_length)

    def sample(self, embeds: Tensor, seeds: Sequence[int]) -> Tensor:
        """Latents float32 [B, C, T, H, W] for embeddings [B, L, D] and B seeds, on the model's device."""
        return self.family.sample_latents(
            self.pipeline, embeds, self._negatives(len(seeds)), seeds, self.settings
        )

    def decode(self, latents: Tensor) -> Frames:
        """Frames uint8 [B, T, H, W, 3] of latents [B, C, T, H, W], `decode_batch` clips at a time."""
        size = self.settings.decode_batch or len(latents)
        parts = [self.family.decode(self.pipeline, part) for part in latents.split(size)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def generate(self, prompts: Sequence[str], seeds: Sequence[int]) -> Generated:
        """Clips for `prompts` (repeated for several clips of one) and as many seeds, as one batch."""
        different = list(dict.fromkeys(prompts))
        rows = [different.index(prompt) for prompt in prompts]
        embeds = self.encode(different)
        latents = self.sample(embeds[rows] if len(different) < len(rows) else embeds, seeds)
        frames = self.decode(latents)
        return Generated(latents.cpu(), embeds.float().cpu(), rows, frames)

    def _negatives(self, count: int) -> Tensor | None:
        if self.settings.guidance <= 1:
            return None
        # Encoded once a batch size, in a batch of that size, as the pipeline would: kernels round by batch
        # shape.
        if count not in self._negative:
            self._negative[count] = self.encode([self.settings.negative_prompt] * count)
        return self._negative[count]


def _private(pipeline: Any, flow_shift: float | None) -> Any:
    """A pipeline over the same weights with its own scheduler, tokenizer and VAE cache."""
    mine = copy.copy(pipeline)
    config = pipeline.scheduler.config
    change: dict[str, float] = {}
    if flow_shift is not None:
        # Flow schedulers call it "shift", multistep ones "flow_shift".
        key = "flow_shift" if "flow_shift" in config else "shift"
        if key not in config or config.get("use_dynamic_shifting"):
            raise BadInput(
                f"generate.flow_shift is set, but {type(pipeline.scheduler).__name__} as this model was "
                "saved has no constant shift: remove flow_shift"
            )
        change[key] = flow_shift
    mine.scheduler = type(pipeline.scheduler).from_config(config, **change)
    mine.tokenizer = copy.deepcopy(pipeline.tokenizer)
    mine.vae = shell(pipeline.vae)
    return mine


def _load_linear_algebra(device: torch.device) -> None:
    """PyTorch loads its CUDA solvers at their first call, and fails if two threads make that call at once.

    The multistep schedulers solve a system at every step.
    """
    if device.type == "cuda":
        torch.linalg.solve(torch.eye(1, device=device), torch.ones(1, 1, device=device))
