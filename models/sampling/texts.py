"""Prompts to embeddings, each encoded once; between times the text encoder leaves the device.

A text encoder of five billion parameters works for milliseconds a prompt and would otherwise hold 11 GB of a
GPU's memory all day (`models.sampling.offload` moves it). Every prompt is encoded alone: its embedding then
does not depend on which others came with it.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from models.families.base import Family
from models.sampling.offload import ModelOffloader


class Texts:
    """The embeddings of one pipeline's prompts; shared by all samplers over its weights.

    Args:
        family: of the pipeline.
        pipeline: with its text encoder, which leaves the device after the first prompts.
        length: tokens, see `SampleSettings.max_sequence_length`.
        offloader: of the pipeline's parts.
    """

    def __init__(self, family: Family, pipeline: Any, length: int, offloader: ModelOffloader) -> None:
        self._family = family
        self._pipeline = copy.copy(pipeline)
        self._pipeline.tokenizer = copy.deepcopy(pipeline.tokenizer)
        self._length = length
        self._offloader = offloader
        self._device: torch.device = pipeline.vae.device
        self._known: dict[str, Tensor] = {}
        self._lock = threading.Lock()

    def prepare(self, prompts: Sequence[str]) -> None:
        """Encode those of `prompts` that are not known yet, in one visit of the encoder to the device."""
        with self._lock:
            new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._known]
            if not new:
                return
            with self._offloader.on_device(ModelOffloader.TEXT):
                for prompt in new:
                    found = self._family.encode_prompts(self._pipeline, [prompt], self._length)
                    self._known[prompt] = found.cpu()

    def forget(self) -> None:
        """Know none any more; the next ones are encoded again."""
        with self._lock:
            self._known.clear()

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """[B, L, D] on the device, in the encoder's dtype."""
        self.prepare(prompts)
        different = list(dict.fromkeys(prompts))
        held = torch.cat([self._known[prompt] for prompt in different]).to(self._device)
        return held[[different.index(prompt) for prompt in prompts]]
