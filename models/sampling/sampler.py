"""Sampling: prompts and seeds to latents and frames, safely from several threads over one set of weights."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from data.errors import ModelError
from models import lora
from models.adapted_linear import Effect
from models.compile import compile_blocks, fastest_attention
from models.families import get_family
from models.families.base import EXPERT_PARTS, Family, Frames, networks_of
from models.families.check_fit import check_fit
from models.families.fit import shift_key
from models.families.settings import Expert, ModelSettings, Quantise, SampleSettings, StepCacheSettings
from models.lora import clone_sharing_weights
from models.sampling.memory_estimate import advice, measure
from models.sampling.offload import ModelOffloader
from models.sampling.texts import Texts

log = logging.getLogger(__name__)

# Of an adapter's effect: what may be missing where it is played.
_LOST: Final = 0.02


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

    Args:
        family: of the pipeline.
        pipeline: on its device, with any adapter.
        settings: how clips are sampled.
        compiled: run the network's blocks through torch.compile.
        texts: where embeddings come from; None encodes every batch's prompts together, as the plain pipeline
            does.
        quantised: how the networks' weights are held.
        offloader: brings networks and text encoder to the device when they are needed; None: all are there.

    Attributes:
        pipeline: what is sampled from: this sampler's own, but for the weights; networks: of it, by part.
        source: the pipeline it was made over, as it was loaded: eager, without a cache.
    """

    def __init__(
        self,
        family: Family,
        pipeline: Any,
        settings: SampleSettings,
        *,
        compiled: bool = False,
        texts: Texts | None = None,
        offloader: ModelOffloader | None = None,
        quantised: Quantise = "none",
    ) -> None:
        if settings.guidance_2 is not None and not family.experts:
            raise ModelError("generate.guidance_2 is for models of two experts; this model has one network")
        self.family = family
        self.settings = settings
        self.compiled = compiled
        self.texts = texts
        self.offloader = offloader
        self.quantised: Quantise = quantised
        self.source = pipeline  # never sampled from: a fork must not copy state that is in use
        self._take_own_state()

    def _take_own_state(self) -> None:
        self._negative: dict[int, Tensor] = {}
        self.pipeline = _private(self.source, self.settings.flow_shift)
        if self.compiled or self.settings.step_cache is not None or self.offloader is not None:
            # All put something of their own on the network's layers.
            for part, network in networks_of(self.family.experts, self.source).items():
                setattr(self.pipeline, part, clone_sharing_weights(network))
        self.networks = networks_of(self.family.experts, self.pipeline)
        if self.compiled:
            for network in self.networks.values():
                compile_blocks(network, device=self.device)
        if self.texts is not None:
            self.pipeline.text_encoder = None

    @classmethod
    def open(
        cls,
        model: ModelSettings,
        settings: SampleSettings,
        adapter: bytes | None = None,
        base_id: str | None = None,
        experts: Mapping[Expert, bytes] | None = None,
    ) -> Sampler:
        """Load a model with its adapters (`models.lora.play`) and make it ready to sample.

        Args:
            adapter: bytes of an adapter made by `models.lora`, for a model of one network.
            base_id: identity of the model; an adapter made for another base is then refused.
            experts: of a model of two experts, the adapters of those that have one.

        Raises:
            ModelError: the model or the adapter cannot be loaded, they do not belong together, or a setting
                does not fit the model.
        """
        family = get_family(model.family)
        if adapter is not None and family.experts:
            raise ModelError(
                f"family {family.name} has two experts and takes an adapter for each; this is one of a model "
                "with one network"
            )
        if experts and not family.experts:
            raise ModelError(
                f"family {family.name} has one network; these adapters are of a model of two experts"
            )
        check_fit(model, settings, fetch=True)
        pipeline = family.load_pipeline(model)
        _load_linear_algebra(pipeline.vae.device)
        adapters: list[tuple[Expert | None, bytes]] = [*(experts or {}).items()]
        if adapter is not None:
            adapters.append((None, adapter))
        for expert, data in adapters:
            network = getattr(pipeline, "transformer" if expert is None else EXPERT_PARTS[expert])
            _tell(lora.play(network, data, base_id, expert, device=pipeline.vae.device), model)
        return cls.on(family, pipeline, model, settings)

    @classmethod
    def on(cls, family: Family, pipeline: Any, model: ModelSettings, settings: SampleSettings) -> Sampler:
        """A sampler over a loaded pipeline, with what its device makes worth while.

        On a GPU blocks are compiled, prompts are encoded once, and parts that do not fit it together take
        turns; on a CPU none of it gains anything, and sampling equals the plain pipeline's bit for bit.
        """
        device = pipeline.vae.device
        gpu = device.type == "cuda"
        compiled = gpu and model.quantise == "none" if model.compile is None else model.compile
        offloader, texts = None, None
        if gpu:
            offloader = ModelOffloader(networks_of(family.experts, pipeline), pipeline.text_encoder, device)
            texts = Texts(family, pipeline, settings.max_sequence_length, offloader)
        return cls(
            family,
            pipeline,
            settings,
            compiled=compiled,
            texts=texts,
            offloader=offloader,
            quantised=model.quantise,
        )

    def fork(self) -> Sampler:
        """A sampler for another thread, over the same weights."""
        other = copy.copy(self)
        other._take_own_state()
        return other

    @property
    def name(self) -> str:
        """The sampling algorithm as stored with every clip: the scheduler's class, and what is not exact."""
        weights = "" if self.quantised == "none" else f", weights: {self.quantised}"
        fast = "" if self.settings.step_cache is None else f", {self.settings.step_cache.describe()}"
        return f"{type(self.pipeline.scheduler).__name__}{weights}{fast}"

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        device: torch.device = self.pipeline.vae.device
        return device

    def prepare(self, prompts: Sequence[str]) -> None:
        """Encode prompts that batches to come will ask for, where embeddings are kept; else do nothing."""
        if self.texts is not None:
            unconditional = [self.settings.negative_prompt] if self.settings.guidance > 1 else []
            self.texts.prepare([*prompts, *unconditional])

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """[B, L, D] embeddings of `prompts` on the model's device; see `texts` for how they are batched."""
        if self.texts is not None:
            return self.texts(prompts)
        return self.family.encode_prompts(self.pipeline, prompts, self.settings.max_sequence_length)

    def sample(self, embeds: Tensor, seeds: Sequence[int], steps: int | None = None) -> Tensor:
        """Latents float32 [B, C, T, H, W] for embeddings [B, L, D] and B seeds, on the model's device.

        Args:
            embeds: of the prompts.
            seeds: one a clip.
            steps: other than the settings', to warm up or to measure.
        """
        settings = self.settings if steps is None else self.settings.changed(steps=steps)
        negative = self._negatives(len(seeds))
        with ExitStack() as stack:
            stack.enter_context(fastest_attention(self.device))
            for network in self.networks.values():
                stack.enter_context(_step_cache(network, settings.step_cache))
            if self.offloader is not None:
                stack.enter_context(self.offloader.in_turn(self.networks))
            return self.family.sample_latents(self.pipeline, embeds, negative, seeds, settings)

    def decode(self, latents: Tensor) -> Frames:
        """Frames uint8 [B, T, H, W, 3] of latents [B, C, T, H, W], `decode_batch` clips at a time."""
        size = self.settings.decode_batch or len(latents)
        parts = [self.family.decode(self.pipeline, part) for part in latents.split(size)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def encode_frames(self, frames: Frames) -> Tensor:
        """Latents float32 [B, C, T, H, W] of frames [B, T, H, W, 3] from elsewhere, on the CPU; as many at a
        time as the device's memory holds, `decode_batch` at most.

        Raises ModelError: it does not hold one.
        """
        size = self.settings.decode_batch or len(frames)
        while True:
            try:
                parts = [
                    self.family.encode(self.pipeline, frames[begin : begin + size]).cpu()
                    for begin in range(0, len(frames), size)
                ]
                return torch.cat(parts)
            except torch.OutOfMemoryError:
                if size == 1:
                    raise ModelError("the device's memory does not hold what the VAE encodes") from None
            torch.cuda.empty_cache()
            size = (size + 1) // 2

    def generate(self, prompts: Sequence[str], seeds: Sequence[int]) -> Generated:
        """Clips for `prompts` (repeated for several clips of one) and as many seeds, as one batch.

        Raises:
            ModelError: the device's memory does not hold so many clips; the message says how many it would.
        """
        try:
            return self._generate(prompts, seeds)
        except torch.OutOfMemoryError:
            # Measured outside the handler: its traceback holds the failed batch's tensors.
            pass
        # What one clip takes: two steps and the decoding together hold its peak.
        steps = min(2, self.settings.steps)
        room = measure(
            self.device, lambda: self.decode(self.sample(self.encode(prompts[:1]), seeds[:1], steps))
        )
        raise ModelError(advice(self.settings, len(seeds), room))

    def _generate(self, prompts: Sequence[str], seeds: Sequence[int]) -> Generated:
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
    change = {}
    if flow_shift is not None:
        change[shift_key(type(pipeline.scheduler).__name__, dict(config))] = flow_shift
    mine.scheduler = type(pipeline.scheduler).from_config(config, **change)
    mine.tokenizer = copy.deepcopy(pipeline.tokenizer)
    mine.vae = clone_sharing_weights(pipeline.vae)
    return mine


def _tell(effect: Effect, model: ModelSettings) -> None:
    """Say how much of an adapter is played; more than a fiftieth that is missing is a warning."""
    if not effect.shares:
        log.info("the adapter of %d layers adds nothing: it has learned nothing yet", effect.layers)
        return
    weights = "" if model.quantise == "none" else f" over weights held as {model.quantise}"
    log.log(
        logging.WARNING if effect.error > _LOST + 2 * effect.uncertainty else logging.INFO,
        "the adapter of %d layers, played in %s%s, has its float32 effect within %.2f%% +- %.2f%%",
        effect.layers, model.dtype, weights, 100 * effect.error, 100 * effect.uncertainty,
    )  # fmt: skip


def _load_linear_algebra(device: torch.device) -> None:
    """PyTorch loads its CUDA solvers at their first call, and fails if two threads make that call at once.

    The multistep schedulers solve a system at every step.
    """
    if device.type == "cuda":
        torch.linalg.solve(torch.eye(1, device=device), torch.ones(1, 1, device=device))


@contextmanager
def _step_cache(transformer: Any, settings: StepCacheSettings | None) -> Iterator[None]:
    """Within: at most steps, blocks are skipped and the last projection's output is extrapolated: TaylorSeer.

    The network must be this thread's own (`clone_sharing_weights`): the hooks keep state between steps. They
    are put on for one run and taken away after it, so that a run that failed leaves nothing behind.
    """
    if settings is None:
        yield
        return
    from diffusers import TaylorSeerCacheConfig

    transformer.enable_cache(
        TaylorSeerCacheConfig(
            cache_interval=settings.interval,
            disable_cache_before_step=settings.warmup,
            max_order=settings.order,
            # Differences of bfloat16 answers lose digits that the expansion then multiplies.
            taylor_factors_dtype=torch.float32,
            use_lite_mode=True,
        )
    )
    try:
        yield
    finally:
        transformer.disable_cache()
